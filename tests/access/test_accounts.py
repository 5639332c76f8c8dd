"""Accounts: names nobody can mistake, passwords only as hashes, and nothing inherited by accident."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest

from api.access import grants, refresh, users
from api.access.accounts import Accounts
from api.access.errors import BadPasswordFile, InvalidUser, KeptElsewhere, NoSuchUser, UserExists
from api.access.htpasswd import MOST_COST, PasswordFile
from api.access.principal import Action
from api.access.settings import AccessSettings, Mode
from api.content import repositories
from api.content.repositories import Access
from api.content.repository import Repository
from cas import Store
from tests.access.conftest import AUTH, NOON, Clock


def accounts_of(store: Store, clock: Clock, settings: AccessSettings = AUTH) -> Accounts:
    return Accounts(store, settings, clock)


def line(name: str, password: str, cost: int = 4) -> str:
    """One line as `htpasswd -B` writes it; Apache's prefix is $2y$."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()
    return f"{name}:$2y${hashed.removeprefix('$2b$')}\n"


class TestNames:
    """A user's name is a name space in every protocol, and looks like no other."""

    @pytest.mark.parametrize("name", ["bob", "b0", "a.b", "a_b", "a__b", "a-b", "a--b", "admin", "x" * 64, "007"])
    def test_a_name_that_every_protocol_takes_is_a_user_name(self, name: str) -> None:
        """`admin` too: it is what operators want."""
        users.check_name(name)

    @pytest.mark.parametrize(
        "name",
        ["", "b", "x" * 65, "Bob", "bob ", " bob", "bob\n", "b:b", "a/b", "-ab", "ab-", "a..b", "a___b", "._", "b\0b",
         "..", "b\u043eb", "\uff42ob", "bo\u0301b", "\u0131an", "bob\u200b", "library", "anonymous", "v1", "v2",
         "token", "nobody"],
    )  # fmt: skip
    def test_what_could_be_mistaken_is_no_user_name(self, store: Store, clock: Clock, name: str) -> None:
        """Look-alikes, names with room in them, and names of what is not somebody; such an account is never found."""
        with pytest.raises(InvalidUser):
            accounts_of(store, clock).add(name, "secret")
        assert store.read(lambda reads: users.find(reads, name)) is None

    @pytest.mark.parametrize("email", ["", "bob", "@x", "a@", "a b@c", "a@b\n", "a@\0", "x" * 251 + "@a.b"])
    def test_an_address_that_leads_nowhere_is_refused(self, store: Store, clock: Clock, email: str) -> None:
        """And no account is made."""
        with pytest.raises(InvalidUser):
            accounts_of(store, clock).add("bob", "secret", email=email)
        assert store.read(users.list_all) == []


class TestPasswords:
    """They are kept as Argon2id, and nowhere else."""

    def test_no_record_and_no_file_of_the_store_holds_a_password(
        self, store: Store, clock: Clock, tmp_path: Path
    ) -> None:
        """Not even in the journal."""
        accounts_of(store, clock).add("bob", "a-very-special-secret")
        user = store.read(lambda reads: users.find(reads, "bob"))
        assert user is not None
        assert user.password.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert "special" not in repr(store.scan(users.USER))
        files = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
        assert files
        assert not any(b"a-very-special-secret" in path.read_bytes() for path in files)

    @pytest.mark.parametrize("password", ["", "x", "x" * 1025, "\u00e9" * 513, "a\0b", "a\ud800b", "x" * (1 << 20)])
    def test_a_password_too_short_too_long_or_no_text_is_refused(
        self, store: Store, clock: Clock, password: str
    ) -> None:
        """At the first account as at each change."""
        accounts = accounts_of(store, clock)
        with pytest.raises(InvalidUser):
            accounts.add("bob", password)
        accounts.add("bob", "xx")
        with pytest.raises(InvalidUser):
            accounts.change("bob", password=password)

    def test_a_password_that_is_too_long_is_wrong_even_where_none_is_right(
        self, store: Store, clock: Clock, tmp_path: Path
    ) -> None:
        """It is compared as if it were empty, to take no longer; an account without a password is not that."""
        path = tmp_path / "empty"
        path.write_text(line("ann", ""))
        accounts = accounts_of(store, clock, AccessSettings(mode=Mode.AUTH, htpasswd=str(path)))
        found = store.read(lambda reads: accounts.find(reads, "ann"))
        assert accounts.verify(found, b"")
        assert not accounts.verify(found, b"x" * 1025)

    def test_a_renewed_hash_never_undoes_a_change(self, store: Store, clock: Clock) -> None:
        """Somebody set another password while the old one was hashed anew."""
        accounts = accounts_of(store, clock)
        accounts.add("bob", "secret")
        old = store.read(lambda reads: users.find(reads, "bob"))
        assert old is not None
        accounts.change("bob", password="another")
        store.change(lambda names: users.rehash(names, old, accounts.passwords.hash(b"secret")))
        now = store.read(lambda reads: accounts.find(reads, "bob"))
        assert accounts.verify(now, b"another")

    def test_operators_may_ask_for_longer_passwords(self, store: Store, clock: Clock) -> None:
        """The default is only what old clients know."""
        strict = accounts_of(store, clock, AccessSettings(mode=Mode.AUTH, min_password_chars=12))
        with pytest.raises(InvalidUser, match="at least 12"):
            strict.add("bob", "eleven char")


class TestInTheStore:
    """Accounts as they are made, changed and removed."""

    def test_a_name_is_given_once_however_many_ask_at_the_same_time(self, store: Store, clock: Clock) -> None:
        """One of eight gets it; the password is that one's."""
        accounts = accounts_of(store, clock)

        def attempt(n: int) -> bool:
            try:
                accounts.add("bob", f"secret-{n}")
            except UserExists:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(attempt, range(8)))
        assert won.count(True) == 1
        user = store.read(lambda reads: users.find(reads, "bob"))
        assert user is not None
        assert accounts.passwords.verify(user.password, f"secret-{won.index(True)}".encode())

    @pytest.mark.parametrize("left", ["repository", "grant"])
    def test_a_stranger_never_inherits_what_a_name_has(self, store: Store, clock: Clock, left: str) -> None:
        """Repositories of somebody removed, grants to a line of a password file: only operators give them away."""
        accounts = accounts_of(store, clock)
        if left == "repository":
            store.change(lambda names: repositories.ensure(names, Repository("bob", "app"), NOON, Access.PRIVATE))
        else:
            store.change(lambda names: grants.put(names, "bob", "eve/app", [Action.PULL]))
        with pytest.raises(UserExists):
            accounts.add("bob", "secret")
        accounts.add("bobby", "secret")
        accounts.add("bob", "secret", inherit=True)

    def test_a_removed_account_leaves_no_right_and_no_token(self, store: Store, clock: Clock) -> None:
        """Not to whoever gets the name next, either: the stamp is another."""
        accounts = accounts_of(store, clock)
        accounts.add("bob", "secret")
        before = store.read(lambda reads: accounts.find(reads, "bob"))
        store.change(lambda names: grants.put(names, "bob", "eve/*", [Action.PULL]))
        token = store.change(lambda names: refresh.issue(names, "bob", "stamp", b"x" * 32, NOON))
        store.change(lambda names: users.remove(names, "bob"))
        assert store.read(lambda reads: accounts.find(reads, "bob")) is None
        assert store.read(lambda reads: grants.of_user(reads, "bob")) == {}
        assert store.read(lambda reads: refresh.owner(reads, token)) is None
        accounts.add("bob", "secret")
        after = store.read(lambda reads: accounts.find(reads, "bob"))
        assert before is not None
        assert after is not None
        assert before.principal.stamp != after.principal.stamp

    def test_a_new_password_ends_what_was_issued_under_the_old_one(self, store: Store, clock: Clock) -> None:
        """A new address does not."""
        accounts = accounts_of(store, clock)
        accounts.add("bob", "secret", email="bob@here")
        user = store.read(lambda reads: users.find(reads, "bob"))
        assert user is not None
        token = store.change(lambda names: refresh.issue(names, "bob", "stamp", b"x" * 32, NOON))
        accounts.change("bob", email="bob@there")
        same = store.read(lambda reads: users.find(reads, "bob"))
        assert same is not None
        assert (same.email, same.stamp, same.password) == ("bob@there", user.stamp, user.password)
        assert store.read(lambda reads: refresh.owner(reads, token)) == ("bob", "stamp")
        clock.now += 10
        accounts.change("bob", password="another")
        other = store.read(lambda reads: users.find(reads, "bob"))
        assert other is not None
        assert other.stamp != user.stamp
        assert (other.created, other.changed) == (int(NOON), int(NOON) + 10)
        assert store.read(lambda reads: refresh.owner(reads, token)) is None

    def test_nobody_changes_an_account_that_there_is_not(self, store: Store, clock: Clock) -> None:
        """Nor one whose name nobody can have."""
        for name in ("bob", "B:b", ""):
            with pytest.raises(NoSuchUser):
                accounts_of(store, clock).change(name, password="secret")


class TestInAFile:
    """A password file is a second source of accounts, and the operator's alone."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A file with one account, and what people write around it."""
        path = tmp_path / "htpasswd"
        path.write_text(f"# operators\n\n{line('ann', 'from-file')}")
        return path

    @pytest.fixture
    def accounts(self, store: Store, clock: Clock, file: Path) -> Accounts:
        """Accounts with that file."""
        return accounts_of(store, clock, AccessSettings(mode=Mode.AUTH, htpasswd=str(file)))

    def test_a_line_is_an_ordinary_account(self, store: Store, accounts: Accounts) -> None:
        """With a name space and a stamp of its own, and no admin."""
        found = store.read(lambda reads: accounts.find(reads, "ann"))
        assert found is not None
        assert (found.principal.name, found.principal.admin, len(found.principal.stamp)) == ("ann", False, 16)
        assert accounts.passwords.verify(found.password, b"from-file")
        assert not accounts.passwords.verify(found.password, b"from-store")

    def test_its_name_is_taken_and_its_password_is_changed_in_the_file_only(
        self, store: Store, accounts: Accounts
    ) -> None:
        """Not by the API, and not by the command."""
        with pytest.raises(UserExists):
            accounts.add("ann", "mine-now", inherit=True)
        with pytest.raises(KeptElsewhere):
            accounts.change("ann", password="mine-now")
        assert store.read(users.list_all) == []

    def test_an_account_of_the_store_comes_before_a_line_of_the_same_name(
        self, store: Store, accounts: Accounts, file: Path
    ) -> None:
        """It was there first, and the name's rights are its."""
        accounts.add("bob", "from-store")
        file.write_text(file.read_text() + line("bob", "from-file"))
        found = store.read(lambda reads: accounts.find(reads, "bob"))
        assert found is not None
        assert accounts.passwords.verify(found.password, b"from-store")

    def test_a_changed_file_counts_at_once(self, store: Store, accounts: Accounts, file: Path) -> None:
        """New lines, gone lines, and another password with another stamp."""
        before = store.read(lambda reads: accounts.find(reads, "ann"))
        file.write_text(line("ann", "another") + line("zoe", "secret"))
        assert accounts.in_file() == ["ann", "zoe"]
        after = store.read(lambda reads: accounts.find(reads, "ann"))
        assert before is not None
        assert after is not None
        assert before.principal.stamp != after.principal.stamp
        file.write_text(line("zoe", "secret"))
        assert store.read(lambda reads: accounts.find(reads, "ann")) is None

    @pytest.mark.parametrize("harm", ["gone", "no bcrypt", "not UTF-8"])
    def test_a_file_that_was_spoiled_leaves_the_old_lines_in_force_and_is_logged_once(
        self, accounts: Accounts, file: Path, harm: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A slip in an editor locks nobody out; once it is mended it counts again."""
        if harm == "gone":
            file.unlink()
        else:
            file.write_bytes(b"ann:secret\n" if harm == "no bcrypt" else b"\xff\xfe")
        with caplog.at_level(logging.ERROR):
            assert accounts.in_file() == accounts.in_file() == ["ann"]
        assert len(caplog.records) == 1
        file.write_text(line("zoe", "secret"))
        assert accounts.in_file() == ["zoe"]

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("ann:plain", ":1: no bcrypt hash"),
            ("ann:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", ":1: no bcrypt hash"),
            ("ann", ":1: no bcrypt hash"),
            ("\n" + "An:$2y$04$" + "x" * 53, ":2: a user name is"),
            ("library:$2y$04$" + "x" * 53, "reserved"),
            ("ann:$2y$31$" + "x" * 53, f"not between 4 and {MOST_COST}"),
            ("ann:$2y$04$" + "x" * 53 + "\nann:$2y$04$" + "x" * 53, ":2: ann is there twice"),
        ],
    )
    def test_a_file_that_cannot_be_understood_is_refused_at_the_start_with_its_line(
        self, tmp_path: Path, text: str, complaint: str
    ) -> None:
        """And no hash is told on."""
        path = tmp_path / "broken"
        path.write_text(text)
        with pytest.raises(BadPasswordFile) as refused:
            PasswordFile(path)
        assert complaint in str(refused.value)
        assert "xxxx" not in str(refused.value)

    def test_a_file_that_is_not_there_is_refused_at_the_start(self, tmp_path: Path) -> None:
        """By its name."""
        with pytest.raises(BadPasswordFile, match="nowhere"):
            PasswordFile(tmp_path / "nowhere")

    def test_a_password_longer_than_bcrypt_reads_is_cut_as_the_file_was_written(
        self, tmp_path: Path, store: Store, clock: Clock
    ) -> None:
        """Apache's tool cuts at 72 bytes, so what was typed there is right here."""
        path = tmp_path / "long"
        path.write_text(line("ann", "x" * 72))
        accounts = accounts_of(store, clock, AccessSettings(mode=Mode.AUTH, htpasswd=str(path)))
        found = store.read(lambda reads: accounts.find(reads, "ann"))
        assert found is not None
        assert accounts.passwords.verify(found.password, b"x" * 80)
        assert not accounts.passwords.verify(found.password, b"x" * 71)
