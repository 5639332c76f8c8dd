"""One policy: who may do what, and lists that show exactly what may be pulled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.access import grants, policy
from api.access.errors import InvalidPattern
from api.access.principal import ALL, ANONYMOUS, NOBODY, NONE, Action, Caller, Principal
from api.access.settings import AccessSettings, Mode
from api.content import catalogue, repositories
from api.content.repositories import Access
from api.content.repository import Repository
from cas import Names, Store
from tests.support.engine import SMALL

AUTH = AccessSettings(mode=Mode.AUTH)
BOB = Caller(Principal("bob"))
ADMIN = Caller(Principal("root", admin=True))
PULL = frozenset({Action.PULL})
REPOSITORIES = ["bob/app", "bob/team/app", "bobby/app", "eve/app", "eve/team/app", "eve/team/lib", "library/app"]
PATTERNS = sorted(set(chain.from_iterable(map(grants.speaking_of, REPOSITORIES))))
ACTIONS = [frozenset(some) for n in range(4) for some in combinations(Action, n)]


def make(store: Store, *names: str, access: Access = Access.PRIVATE) -> None:
    def edit(inside: Names) -> None:
        for name in names:
            repositories.ensure(inside, Repository.of(name), 0, access)

    store.change(edit)


def grant(store: Store, pattern: str, *actions: Action, user: str = "bob") -> None:
    store.change(lambda names: grants.put(names, user, pattern, actions))


def may(store: Store, caller: Caller, name: str, settings: AccessSettings = AUTH) -> frozenset[Action]:
    return store.read(lambda reads: policy.rights(reads, settings, caller, Repository.of(name)))


def seen(store: Store, caller: Caller, settings: AccessSettings = AUTH) -> list[str]:
    return store.read(lambda reads: list(catalogue.search(reads, policy.sight(reads, settings, caller))))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all examples of a property."""
    with Store.open(tmp_path_factory.mktemp("shared") / "root", SMALL, create=True) as store:
        yield store


class TestWithoutGrants:
    """What follows from a name and a flag alone."""

    def test_an_account_may_do_everything_below_its_own_name_and_nothing_elsewhere(self, store: Store) -> None:
        """Whether the repository is there or not; a name that begins alike is another."""
        make(store, "bob/app", "eve/app", "library/app")
        assert may(store, BOB, "bob/app") == may(store, BOB, "bob/new") == may(store, BOB, "bob/a/b") == ALL
        for name in ("eve/app", "eve/new", "bobby/app", "app", "library/bob"):
            assert may(store, BOB, name) == NONE

    def test_nobody_may_do_anything_but_pull_what_is_public(self, store: Store) -> None:
        """And so may everybody with an account."""
        make(store, "eve/open", access=Access.PUBLIC)
        make(store, "eve/closed")
        assert [may(store, NOBODY, name) for name in ("eve/open", "eve/closed", "eve/none")] == [PULL, NONE, NONE]
        assert may(store, BOB, "eve/open") == PULL
        assert seen(store, NOBODY) == seen(store, BOB) == ["eve/open"]

    def test_an_admin_may_do_everything(self, store: Store) -> None:
        """The library included."""
        make(store, "eve/app", "app")
        assert may(store, ADMIN, "eve/app") == may(store, ADMIN, "app") == ALL
        assert seen(store, ADMIN) == ["eve/app", "library/app"]

    def test_in_open_mode_everybody_may_do_everything(self, store: Store) -> None:
        """No account is looked at."""
        make(store, "eve/app")
        opened = AccessSettings(mode=Mode.OPEN)
        assert may(store, NOBODY, "eve/app", opened) == ALL
        assert seen(store, NOBODY, opened) == ["eve/app"]

    def test_a_mode_that_came_as_plain_text_is_the_same_mode(self, store: Store) -> None:
        """Workers get their settings as JSON; nobody becomes an admin or a stranger by that."""
        assert may(store, NOBODY, "eve/app", AccessSettings(mode="auth")) == NONE  # type: ignore[arg-type]
        assert may(store, NOBODY, "eve/app", AccessSettings(mode="open")) == ALL  # type: ignore[arg-type]


class TestTokens:
    """Credentials that are good for less than their owner."""

    def test_a_token_is_good_for_what_it_says_and_its_owner_may_do_now(self, store: Store) -> None:
        """Neither a wide scope nor wide rights are enough."""
        scope = frozenset({("bob/app", Action.PULL), ("eve/app", Action.PUSH)})
        assert may(store, Caller(BOB.principal, scope), "bob/app") == PULL
        assert may(store, Caller(BOB.principal, scope), "eve/app") == NONE
        assert may(store, Caller(BOB.principal, scope), "bob/other") == NONE
        assert may(store, Caller(ADMIN.principal, scope), "eve/app") == {Action.PUSH}
        assert may(store, Caller(ANONYMOUS, scope), "bob/app") == NONE

    def test_in_token_mode_only_what_the_index_vouched_for_counts(self, store: Store) -> None:
        """No account, no own name space, no public repository, no admin."""
        make(store, "bob/app", access=Access.PUBLIC)
        vouched = AccessSettings(mode=Mode.TOKEN)
        scope = frozenset({("bob/app", Action.PULL)})
        assert may(store, Caller(ANONYMOUS, scope), "bob/app", vouched) == PULL
        assert may(store, Caller(ANONYMOUS, scope), "bob/other", vouched) == NONE
        for caller in (NOBODY, BOB, ADMIN):
            assert may(store, caller, "bob/app", vouched) == NONE


class TestGrants:
    """What operators say."""

    @pytest.mark.parametrize("pattern", ["eve/team/app", "eve/team/*", "eve/*", "*"])
    def test_a_grant_speaks_of_everything_its_pattern_covers(self, store: Store, pattern: str) -> None:
        """And a push includes the pull that every client needs with it."""
        grant(store, pattern, Action.PUSH)
        assert may(store, BOB, "eve/team/app") == {Action.PULL, Action.PUSH}
        assert may(store, BOB, "library/x") == ({Action.PULL, Action.PUSH} if pattern == "*" else NONE)

    def test_the_most_specific_grant_decides_even_if_it_gives_nothing(self, store: Store) -> None:
        """An exception is one more grant."""
        grant(store, "eve/*", Action.PUSH, Action.DELETE)
        grant(store, "eve/team/*", Action.PULL)
        grant(store, "eve/team/app")
        assert may(store, BOB, "eve/app") == ALL
        assert may(store, BOB, "eve/team/lib") == PULL
        assert may(store, BOB, "eve/team/app") == NONE

    def test_a_grant_of_everything_takes_nothing_from_the_own_name_space(self, store: Store) -> None:
        """`*` is wider than `bob/*`."""
        grant(store, "*", Action.PULL)
        assert may(store, BOB, "bob/app") == ALL
        assert may(store, BOB, "eve/app") == PULL

    def test_a_short_name_and_the_library_are_one(self) -> None:
        """In patterns as everywhere."""
        assert grants.parse_pattern("app") == "library/app"
        assert [grants.parse_pattern(text) for text in ("a/b", "a/*", "a/b/*", "*")] == ["a/b", "a/*", "a/b/*", "*"]

    @pytest.mark.parametrize(
        "text", ["", "/", "a/", "/a", "A/b", "a*", "*/a", "a/**", "a b", "a:b", "\u0430/b", "a/b\n", "a" * 260]
    )
    def test_what_no_repository_can_be_called_is_no_pattern(self, text: str) -> None:
        """Nobody grants something that will never be looked up."""
        with pytest.raises(InvalidPattern):
            grants.parse_pattern(text)


class TestAgainstBruteForce:
    """Lists and rights are computed in two ways, and agree."""

    @given(
        given_=st.dictionaries(st.sampled_from(PATTERNS), st.sampled_from(ACTIONS), max_size=5),
        public=st.sets(st.sampled_from(REPOSITORIES)),
        private=st.sets(st.sampled_from(REPOSITORIES)),
        revoked=st.none() | st.sampled_from(PATTERNS),
    )
    @settings(max_examples=150)
    def test_a_list_shows_what_may_be_pulled_and_nothing_else(
        self,
        shared: Store,
        given_: dict[str, frozenset[Action]],
        public: set[str],
        private: set[str],
        revoked: str | None,
    ) -> None:
        """Whatever was granted and revoked; and what was revoked is gone, all of it, and nothing else."""

        class Undo(Exception):
            """Ends a change without a trace."""

        def look(names: Names) -> None:
            for name in public | private:
                access = Access.PUBLIC if name in public else Access.PRIVATE
                repositories.ensure(names, Repository.of(name), 0, access)
            for pattern, actions in given_.items():
                grants.put(names, "bob", pattern, actions)
            before = {name: policy.rights(names, AUTH, BOB, Repository.of(name)) for name in REPOSITORIES}
            if revoked is not None:
                policy.revoke(names, "bob", revoked)
            for name in REPOSITORIES:
                now = policy.rights(names, AUTH, BOB, Repository.of(name))
                if revoked is not None and revoked in grants.speaking_of(name):
                    assert now == (PULL if name in public else NONE)
                else:
                    assert now == before[name]
            for caller in (BOB, NOBODY, ADMIN):
                may_pull = [
                    name
                    for name in sorted(public | private)
                    if Action.PULL in policy.rights(names, AUTH, caller, Repository.of(name))
                ]
                assert list(catalogue.search(names, policy.sight(names, AUTH, caller))) == may_pull
            raise Undo

        with pytest.raises(Undo):
            shared.change(look)
