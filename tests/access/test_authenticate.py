"""Who is there: at the price of few slow hashes, telling strangers nothing, and locking nobody out."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import argon2
import bcrypt
import pytest

from api.access import guard, users
from api.access.authenticate import Authenticator
from api.access.errors import BadCredentials, TooManyFailures
from api.access.guard import MOST_KEPT, Failures, network
from api.access.principal import NOBODY, Caller
from api.access.settings import AccessSettings, Mode
from cas import Busy, Store
from tests.access.conftest import AUTH, Clock, MakeAuthenticator, basic

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Work:
    """Slow hashes that were computed: kind and parameters, never the password."""

    def __init__(self) -> None:
        self.done: list[str] = []


@pytest.fixture
def work() -> Iterator[Work]:
    """Count comparisons where they are made."""
    counted = Work()
    argon, check = argon2.PasswordHasher.verify, bcrypt.checkpw

    def verify(self: argon2.PasswordHasher, kept: str | bytes, password: str | bytes) -> Any:
        counted.done.append(str(kept).rpartition("$")[0].rpartition("$")[0])
        return argon(self, kept, password)

    def checkpw(password: bytes, kept: bytes) -> bool:
        counted.done.append(f"bcrypt {kept.split(b'$')[2].decode()}")
        return check(password, kept)

    with patch.object(argon2.PasswordHasher, "verify", verify), patch.object(bcrypt, "checkpw", checkpw):
        yield counted


def ask(authenticator: Authenticator, header: str | None, address: str = HERE) -> Caller:
    return asyncio.run(authenticator.basic(header, address))


def answer(authenticator: Authenticator, header: str | None, address: str = HERE) -> str:
    try:
        return str(ask(authenticator, header, address).principal.name)
    except (BadCredentials, TooManyFailures) as error:
        return f"{error.status}"


class TestHeaders:
    """Whatever stands in an Authorization header, there is an answer."""

    @pytest.mark.parametrize(
        "header",
        ["", " ", "Basic", "Basic ", "Basic !!!!", "Basic Zm9v", "Basic Zm9vOmJhcg", "Basic Zm9v OmJhcg==",
         "Basic \xff", "Bearer x", "Token x", "Digest username=x", "basicZm9vOmJhcg==", "Basic=Zm9vOmJhcg==",
         "Basic Og==, Basic Og==", "\0", "Basic \0", "Basic " + "A" * 60_000, "Basic //79Og"],
    )  # fmt: skip
    def test_a_header_that_is_no_basic_credentials_is_refused_without_any_work(
        self, authenticator: MakeAuthenticator, work: Work, header: str
    ) -> None:
        """401 with words that say what was expected."""
        with pytest.raises(BadCredentials, match="base64 of user:password"):
            ask(authenticator(), header)
        assert work.done == []

    @pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC", " Basic"])
    def test_the_scheme_is_read_in_any_case(self, authenticator: MakeAuthenticator, scheme: str) -> None:
        """And around it there may be blanks."""
        asked = authenticator()
        asked.accounts.add("bob", "sec:ret")
        assert answer(asked, f"{scheme}  {base64.b64encode(b'bob:sec:ret').decode()} ") == "bob"

    def test_no_header_and_empty_credentials_are_nobody_in_particular(
        self, authenticator: MakeAuthenticator, work: Work
    ) -> None:
        """`Basic Og==` is what engines send that were given no password; never a wrong one."""
        assert ask(authenticator(), None) is ask(authenticator(), "Basic Og==") is NOBODY
        assert work.done == []

    def test_in_open_mode_no_header_is_looked_at(self, authenticator: MakeAuthenticator, work: Work) -> None:
        """Not even a broken one."""
        opened = authenticator(AccessSettings(mode=Mode.OPEN))
        for header in (None, "Basic !!", "Token x", basic("bob", "wrong")):
            assert ask(opened, header) is NOBODY
        assert work.done == []

    @pytest.mark.parametrize("user", ["bob\0", "BOB", "b\u043eb", "bob ", "", "library", "x" * 5000, "a:b"])
    def test_a_name_that_only_looks_like_an_account_is_wrong(self, authenticator: MakeAuthenticator, user: str) -> None:
        """With the right password."""
        asked = authenticator()
        asked.accounts.add("bob", "secret")
        assert answer(asked, basic(user, "secret")) == "401"

    def test_a_name_in_no_encoding_is_wrong(self, authenticator: MakeAuthenticator) -> None:
        """Latin-1, for one."""
        assert answer(authenticator(), "Basic " + base64.b64encode(b"b\xf6b:secret").decode()) == "401"


class TestWork:
    """Slow hashes are computed when they must be, and tell nothing by their number."""

    def test_a_password_sent_with_each_of_hundreds_of_requests_is_hashed_once(
        self, authenticator: MakeAuthenticator, work: Work
    ) -> None:
        """Until a minute has passed."""
        asked = authenticator()
        asked.accounts.add("bob", "secret")
        assert [answer(asked, basic("bob", "secret")) for _ in range(200)] == ["bob"] * 200
        assert len(work.done) == 1

    def test_hundreds_of_requests_at_the_same_moment_cost_little_more_than_one(
        self, authenticator: MakeAuthenticator, work: Work
    ) -> None:
        """And all of them get in."""
        asked = authenticator()
        asked.accounts.add("bob", "secret")

        async def burst() -> list[Caller]:
            return await asyncio.gather(*(asked.basic(basic("bob", "secret"), HERE) for _ in range(200)))

        assert {caller.principal.name for caller in asyncio.run(burst())} == {"bob"}
        assert len(work.done) <= AUTH.user_failures + 1

    def test_what_was_right_a_minute_ago_is_hashed_anew(
        self, authenticator: MakeAuthenticator, work: Work, clock: Clock
    ) -> None:
        """Also when the clock was set back."""
        asked = authenticator()
        asked.accounts.add("bob", "secret")
        for step_s in (0, 59, 2, -1000):
            clock.now += step_s
            assert answer(asked, basic("bob", "secret")) == "bob"
        assert len(work.done) == 3

    @pytest.mark.parametrize("name", ["bob", "nobody-here", "library", "B\u00d6B", "ann"])
    @pytest.mark.parametrize("password", ["wrong", "x" * 5000])
    def test_a_wrong_password_costs_the_same_for_every_name_there_is_or_is_not(
        self, authenticator: MakeAuthenticator, work: Work, tmp_path: Path, name: str, password: str
    ) -> None:
        """Same hashes, same parameters, same answer; with a password file as without."""
        file = tmp_path / "htpasswd"
        file.write_text("ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(5)).decode() + "\n")
        with_file = authenticator(AccessSettings(mode=Mode.AUTH, htpasswd=str(file)))
        with_file.accounts.add("bob", "secret")
        with pytest.raises(BadCredentials) as refused:
            ask(with_file, basic(name, password))
        assert refused.value.message == "wrong user name or password"
        assert work.done == ["$argon2id$v=19$m=19456,t=2,p=1", "bcrypt 05"]
        if name != "ann":
            work.done.clear()
            assert answer(authenticator(), basic(name, password)) == "401"
            assert work.done == ["$argon2id$v=19$m=19456,t=2,p=1"]

    def test_an_unknown_name_costs_what_the_dearest_line_costs_as_the_file_is_now(
        self, authenticator: MakeAuthenticator, work: Work, tmp_path: Path
    ) -> None:
        """A file whose lines were made dearer tells nothing, either."""
        file = tmp_path / "htpasswd"
        file.write_text("ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n")
        asked = authenticator(AccessSettings(mode=Mode.AUTH, htpasswd=str(file)))
        file.write_text("ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(6)).decode() + "\n")
        assert answer(asked, basic("nobody-here", "wrong")) == "401"
        assert work.done[1:] == ["bcrypt 06"]

    def test_a_line_of_a_password_file_logs_in(self, authenticator: MakeAuthenticator, tmp_path: Path) -> None:
        """And stops when the line is gone, remembered or not."""
        file = tmp_path / "htpasswd"
        file.write_text("ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n")
        asked = authenticator(AccessSettings(mode=Mode.AUTH, htpasswd=str(file)))
        assert [answer(asked, basic("ann", "secret")) for _ in range(2)] == ["ann", "ann"]
        file.write_text("")
        assert answer(asked, basic("ann", "secret")) == "401"

    def test_a_hash_of_older_parameters_is_renewed_at_the_next_login(
        self, authenticator: MakeAuthenticator, store: Store
    ) -> None:
        """The password, the stamp and everything issued stay as they are."""
        asked = authenticator()
        asked.accounts.add("bob", "secret")
        before = store.read(lambda reads: users.find(reads, "bob"))
        assert before is not None
        old = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("secret")
        store.change(lambda names: users.rehash(names, before, old))
        assert answer(asked, basic("bob", "secret")) == "bob"
        after = store.read(lambda reads: users.find(reads, "bob"))
        assert after is not None
        assert after.password.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert after.stamp == before.stamp
        assert answer(authenticator(), basic("bob", "secret")) == "bob"

    def test_a_login_does_not_fail_because_its_hash_cannot_be_renewed(
        self, authenticator: MakeAuthenticator, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A full disk locks nobody out."""
        asked = authenticator()
        asked.accounts.add("bob", "secret")
        with patch.object(asked.accounts, "renew", side_effect=Busy("somebody writes")):
            assert answer(asked, basic("bob", "secret")) == "bob"
        assert "bob" in caplog.text
        assert "secret" not in caplog.text


class TestAtOnce:
    """What operators and users change counts from the next request on, in every worker."""

    def test_a_changed_password_counts_at_once(self, authenticator: MakeAuthenticator) -> None:
        """The old one is forgotten where it was remembered."""
        here, there = authenticator(), authenticator()
        here.accounts.add("bob", "secret")
        assert answer(here, basic("bob", "secret")) == answer(there, basic("bob", "secret")) == "bob"
        here.accounts.change("bob", password="another")
        assert [answer(one, basic("bob", "secret")) for one in (here, there)] == ["401", "401"]
        assert [answer(one, basic("bob", "another")) for one in (here, there)] == ["bob", "bob"]

    def test_a_removed_account_is_gone_at_once(self, authenticator: MakeAuthenticator, store: Store) -> None:
        """And a new one of that name is not let in by the old password."""
        asked = authenticator()
        asked.accounts.add("bob", "secret")
        assert answer(asked, basic("bob", "secret")) == "bob"
        store.change(lambda names: users.remove(names, "bob"))
        assert answer(asked, basic("bob", "secret")) == "401"
        asked.accounts.add("bob", "another")
        assert answer(asked, basic("bob", "secret")) == "401"

    def test_a_token_is_of_this_account_with_this_password_or_of_nobody(
        self, authenticator: MakeAuthenticator, store: Store
    ) -> None:
        """The stamp tells."""
        asked = authenticator()
        asked.accounts.add("bob", "secret", admin=True)
        first = store.read(lambda reads: asked.principal(reads, "bob"))
        assert first is not None
        assert first.admin
        assert store.read(lambda reads: asked.principal(reads, "bob", first.stamp)) == first
        asked.accounts.change("bob", password="another")
        assert store.read(lambda reads: asked.principal(reads, "bob", first.stamp)) is None
        assert store.read(lambda reads: asked.principal(reads, "eve")) is None
        assert store.read(lambda reads: asked.principal(reads, "b\0b")) is None


class TestGuessing:
    """Guessing is slow for whoever guesses, and for nobody else."""

    def test_a_few_failures_a_minute_are_answered_401_and_further_ones_429(
        self, authenticator: MakeAuthenticator, clock: Clock
    ) -> None:
        """With the time after which one more is let through."""
        asked = authenticator()
        asked.accounts.add("bob", "secret")
        answers = [answer(asked, basic("bob", f"wrong-{n}")) for n in range(15)]
        assert answers == ["401"] * 10 + ["429"] * 5
        with pytest.raises(TooManyFailures) as refused:
            ask(asked, basic("bob", "wrong"))
        assert refused.value.headers == {"Retry-After": "6"}
        clock.now += 6
        assert [answer(asked, basic("bob", "wrong")) for _ in range(2)] == ["401", "429"]

    def test_the_right_password_is_never_locked_out(self, authenticator: MakeAuthenticator) -> None:
        """Not at the address that was wrong too often, and not after it was right."""
        asked = authenticator()
        asked.accounts.add("bob", "secret")
        for n in range(20):
            answer(asked, basic("bob", f"wrong-{n}"))
        assert [answer(asked, basic("bob", "secret")) for _ in range(3)] == ["bob"] * 3
        assert answer(asked, basic("bob", "wrong")) == "429"

    def test_failures_elsewhere_and_of_others_are_not_held_against_anybody(
        self, authenticator: MakeAuthenticator
    ) -> None:
        """Another address, another name."""
        asked = authenticator()
        for n in range(20):
            answer(asked, basic("bob", f"wrong-{n}"))
        assert answer(asked, basic("bob", "wrong"), THERE) == "401"
        assert answer(asked, basic("eve", "wrong"), HERE) == "401"

    def test_an_address_that_tries_many_names_is_slowed_down_too(self, authenticator: MakeAuthenticator) -> None:
        """And being right in between, with an account of one's own, wins no further guess."""
        asked = authenticator(AccessSettings(mode=Mode.AUTH, address_failures=5, remember_s=0))
        asked.accounts.add("eve", "secret")
        answers = []
        for n in range(8):
            answers.append(answer(asked, basic(f"user-{n}", "wrong")))
            assert answer(asked, basic("eve", "secret")) == "eve"
        assert answers == ["401"] * 5 + ["429"] * 3

    def test_guesses_made_at_the_same_moment_are_counted_before_they_are_known(
        self, authenticator: MakeAuthenticator
    ) -> None:
        """A hundred connections win nothing."""
        asked = authenticator()
        asked.accounts.add("bob", "secret")

        async def burst() -> list[str]:
            guesses = (asked.basic(basic("bob", f"wrong-{n}"), HERE) for n in range(30))
            return [type(found).__name__ for found in await asyncio.gather(*guesses, return_exceptions=True)]

        answers = asyncio.run(burst())
        assert (answers.count("BadCredentials"), answers.count("TooManyFailures")) == (10, 20)

    def test_an_address_over_the_limit_is_served_one_guess_at_a_time(self, authenticator: MakeAuthenticator) -> None:
        """So somebody else finds a thread free at any moment, and the waiting has an end."""
        asked = authenticator(AccessSettings(mode=Mode.AUTH, password_checks=4))
        asked.accounts.add("bob", "secret")
        for n in range(10):
            answer(asked, basic("bob", f"wrong-{n}"))
        running, most = 0, 0
        run = asked.checks.run

        async def count(*step: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return await run(*step)
            finally:
                running -= 1

        async def flood() -> list[Any]:
            guesses = (asked.basic(basic("bob", f"wrong-{n}"), HERE) for n in range(12))
            return await asyncio.gather(*guesses, return_exceptions=True)

        with patch.object(asked.checks, "run", count), patch.object(guard, "MOST_WAITING", 8):
            answers = asyncio.run(flood())
        assert most == 1
        assert all(isinstance(one, TooManyFailures) for one in answers)

    def test_accounts_are_made_one_at_a_time_for_one_address_and_beside_others(
        self, authenticator: MakeAuthenticator
    ) -> None:
        """Signing up in a flood keeps nobody else from logging in."""
        asked = authenticator(AccessSettings(mode=Mode.AUTH, password_checks=2))
        began, gate = threading.Event(), threading.Event()

        def slow() -> None:
            began.set()
            assert gate.wait(60)

        async def flood() -> Caller:
            jobs = [asyncio.create_task(asked.work(HERE, slow)) for _ in range(5)]
            await asyncio.to_thread(began.wait, 60)
            await asked.work(THERE, partial(asked.accounts.add, "bob", "secret"))
            try:
                return await asked.basic(basic("bob", "secret"), THERE)
            finally:
                gate.set()
                await asyncio.gather(*jobs)

        assert asyncio.run(flood()).principal.name == "bob"

    def test_a_caller_who_hangs_up_leaves_no_queue_behind(self, authenticator: MakeAuthenticator) -> None:
        """And the guess counts: hanging up is no way round."""
        asked = authenticator()

        async def hang_up() -> None:
            tasks = [asyncio.create_task(asked.basic(basic("bob", f"wrong-{n}"), HERE)) for n in range(15)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for n in range(12):
                with pytest.raises((BadCredentials, TooManyFailures)):
                    await asked.basic(basic("bob", f"more-{n}"), HERE)

        asyncio.run(hang_up())
        assert answer(asked, basic("bob", "wrong")) == "429"

    def test_what_is_remembered_of_strangers_is_bounded(self, clock: Clock) -> None:
        """Those go first that were wrong longest ago."""
        failures = Failures(1, clock)
        for n in range(MOST_KEPT + 10):
            failures.add(f"address-{n}")
        assert failures.wait_s("address-9") == 0
        assert failures.wait_s("address-10") > 0

    @pytest.mark.parametrize(
        ("address", "other", "same"),
        [
            ("192.0.2.1", "192.0.2.2", False),
            ("2001:db8::1", "2001:db8::ffff:1", True),
            ("2001:db8::1", "2001:db8:0:1::1", False),
            ("::ffff:192.0.2.1", "192.0.2.1", True),
            ("unix", "unix", True),
        ],
    )
    def test_addresses_that_one_customer_has_count_as_one(self, address: str, other: str, same: bool) -> None:
        """A network of IPv6, or one address of IPv4 however it is spelt."""
        assert (network(address) == network(other)) is same
