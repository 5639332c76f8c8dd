"""Who was let in a moment ago is let in again without being looked up, and not for a moment longer than before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import bcrypt
import pytest

from api.access import grants, keys, users
from api.access.accounts import Accounts
from api.access.principal import Action
from api.content import repositories
from api.content.repositories import Access
from api.content.repository import Repository
from cas import Name, Record
from tests.support.counting import counted_crossings
from tests.wire.v2.members import ANN, BOB, Members, basic, limited, members

BOX = "bob/box"
PATH, SCOPE = f"/v2/{BOX}/manifests/latest", f"repository:{BOX}:pull"
Who = Callable[[Members], str | None]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Members]:
    """One of whose repositories ann may pull, and everybody else, too, once it is public."""
    with members(tmp_path / "root") as registry:
        registry.push(BOX, BOB)
        registry.grant("ann", BOX, Action.PULL)
        yield registry


def ann(_: Members) -> str:
    return basic(ANN)


def anns_token(registry: Members) -> str:
    return registry.token(SCOPE, who=ANN)


def nobody(registry: Members) -> None:
    registry.publish(BOX)


def nobodys_token(registry: Members) -> str:
    registry.publish(BOX)
    return registry.token(SCOPE)


def let_in(registry: Members, who: Who) -> str | None:
    """Come twice; return what was shown."""
    shown = who(registry)
    assert [registry.ask("GET", PATH, shown).status_code for _ in range(2)] == [200, 200]
    return shown


def is_let_in(registry: Members, shown: str | None) -> bool:
    answer = registry.ask("GET", PATH, shown)
    assert answer.status_code in {200, 401, 403}
    return answer.status_code == 200


@pytest.mark.parametrize("who", [ann, anns_token, nobody, nobodys_token])
def test_whoever_was_let_in_is_not_looked_up_again(registry: Members, who: Who) -> None:
    """Not either once something else has changed, which every push does: that is looked at where nobody waits."""
    shown = let_in(registry, who)
    with counted_crossings() as steps:
        for number in range(3):
            registry.pushed.store.change(lambda names, n=number: names.put(Name("else", str(n)), Record(b"")))  # type: ignore[misc]
            assert is_let_in(registry, shown)
    assert steps == []


def test_a_large_token_is_looked_up_each_time(registry: Members) -> None:
    """Anybody may sign up and have as many as they like, each for a hundred repositories: to keep all took a GiB."""
    scopes = [f"repository:ann/{number}{'x' * 200}:*" for number in range(100)]
    shown = let_in(registry, lambda registry: registry.token(SCOPE, *scopes, who=ANN))
    with counted_crossings() as steps:
        assert is_let_in(registry, shown)
    assert steps == ["look_up"]


def take_grant(registry: Members) -> None:
    registry.pushed.store.change(lambda names: grants.delete(names, "ann", BOX))


def forbid(registry: Members) -> None:
    registry.grant("ann", BOX)


def remove_ann(registry: Members) -> None:
    registry.pushed.store.change(lambda names: users.remove(names, "ann"))


def another_password(registry: Members) -> None:
    registry.accounts.change("ann", password="another")


def another_ann(registry: Members) -> None:
    remove_ann(registry)
    registry.accounts.add("ann", "somebody else")
    registry.grant("ann", BOX, Action.PULL)


def new_keys(registry: Members) -> None:
    registry.pushed.store.change(lambda names: keys.rotate(names, registry.clock(), keep=0))


def hide(registry: Members) -> None:
    registry.pushed.store.change(lambda names: repositories.set_access(names, Repository.of(BOX), Access.PRIVATE))


@pytest.mark.parametrize(
    ("who", "change"),
    [
        *((who, end) for who in (ann, anns_token) for end in (take_grant, forbid, remove_ann, another_password)),
        *((who, another_ann) for who in (ann, anns_token)),
        (anns_token, new_keys),
        (nobodys_token, new_keys),
        (nobody, hide),
        (nobodys_token, hide),
    ],
)
def test_what_is_taken_away_is_gone_at_once(registry: Members, who: Who, change: Callable[[Members], None]) -> None:
    """Grants, accounts, passwords, keys and what is public, however often somebody was let in before."""
    shown = let_in(registry, who)
    change(registry)
    assert not is_let_in(registry, shown)


def test_an_admin_no_longer_is_one_at_once(registry: Members) -> None:
    """Who could do everything may do nothing more with the same words."""
    take_grant(registry)
    registry.pushed.store.change(lambda names: users.set_admin(names, "ann", admin=True))
    shown = let_in(registry, ann)
    registry.pushed.store.change(lambda names: users.set_admin(names, "ann", admin=False))
    assert not is_let_in(registry, shown)


def test_a_list_is_of_what_its_reader_may_see_now(registry: Members) -> None:
    """Whoever is known may have one, before and after; who is no admin any more is not taken for the one of before."""
    take_grant(registry)
    registry.pushed.store.change(lambda names: users.set_admin(names, "ann", admin=True))
    shown = [basic(ANN), registry.token("registry:catalog:*", who=ANN)]
    lists = [registry.ask("GET", "/v2/_catalog", each).json()["repositories"] for each in shown * 2]
    registry.pushed.store.change(lambda names: users.set_admin(names, "ann", admin=False))
    lists += [registry.ask("GET", "/v2/_catalog", each).json()["repositories"] for each in shown]
    assert lists == [[BOX]] * 4 + [[]] * 2


def test_a_right_to_pull_is_none_to_push(registry: Members) -> None:
    """Nor one to another repository, nor to delete."""
    shown = let_in(registry, ann)
    for method, path in [
        ("POST", f"/v2/{BOX}/blobs/uploads/"),
        ("DELETE", PATH),
        ("GET", "/v2/bob/other/manifests/latest"),
    ]:
        assert registry.ask(method, path, shown).status_code == 403


def test_what_was_not_looked_at_for_a_minute_is_looked_up_by_a_thread(registry: Members) -> None:
    """However often somebody came meanwhile: nothing had changed, so nothing was read, and it may be on the disk."""
    shown = let_in(registry, anns_token)
    for _ in range(2):
        registry.clock.now += 50
        assert is_let_in(registry, shown)
    registry.pushed.store.change(lambda names: names.put(Name("else", "it"), Record(b"")))
    with counted_crossings() as steps:
        assert [is_let_in(registry, shown) for _ in range(2)] == [True, True]
    assert steps == ["look_up", "_open"]


def test_a_token_that_let_somebody_in_ends_with_its_time(registry: Members) -> None:
    """Ten minutes, and one for clocks that differ."""
    shown = let_in(registry, anns_token)
    registry.clock.now += 600 + 60
    assert is_let_in(registry, shown)
    registry.clock.now += 1
    assert not is_let_in(registry, shown)


def test_a_password_that_let_somebody_in_is_hashed_again_after_a_minute(registry: Members) -> None:
    """However often it was shown meanwhile, and for whatever: what was first wanted late is known no longer."""
    shown, late = let_in(registry, ann), "/v2/"
    with patch.object(Accounts, "verify", autospec=True, side_effect=Accounts.verify) as hashed:
        registry.clock.now += 59
        assert is_let_in(registry, shown)
        assert registry.ask("GET", late, shown).status_code == 200
        assert hashed.call_count == 0
        registry.clock.now += 1
        assert registry.ask("GET", late, shown).status_code == 200
        assert hashed.call_count == 1
        assert is_let_in(registry, shown)
        assert hashed.call_count == 1


def test_a_line_taken_from_the_password_file_is_gone_at_once(tmp_path: Path) -> None:
    """The store does not know of it."""
    file = tmp_path / "htpasswd"
    file.write_text("zoe:" + bcrypt.hashpw(b"zoe's secret", bcrypt.gensalt(4)).decode() + "\n")
    with members(tmp_path / "root", limited(htpasswd=str(file))) as registry:
        registry.push(BOX, BOB)
        registry.grant("zoe", BOX, Action.PULL)
        shown = [basic("zoe:zoe's secret"), registry.token(SCOPE, who="zoe:zoe's secret")]
        assert [is_let_in(registry, each) for each in shown * 2] == [True] * 4
        file.write_text("")
        assert [is_let_in(registry, each) for each in shown] == [False, False]
