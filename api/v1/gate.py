"""The gate of a server that is index and registry: who may use which route, before a handler runs.

Knows Basic, tokens and, for routes without a repository, from where an image is seen. What somebody may do to a
repository is the policy's to say. Whoever has shown nothing gets the same 401 for what is there and what is not; an
account without the right gets the answer of a repository that does not exist, or a 403 that does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import final

from api.access import bearer, keys, policy
from api.access.authenticate import Authenticator
from api.access.errors import BadCredentials
from api.access.principal import ANONYMOUS, NOBODY, Action, Caller
from api.access.settings import AccessSettings
from api.content.repository import Repository
from api.errors import ApiError
from api.threads import Run
from api.v1 import homes, names, refusals, tokens
from api.v1.rights import GRANTS, MAY_BE_LATE, Admission, Ask, Need, Side, refused, suffices
from api.v1.tokens import Claim, Token
from cas import Reads, Store


@final
class OpenGate:
    """Lets everybody in. Nothing that is shown is looked at, but for the token of a delete made in steps."""

    def __init__(self, store: Store, run: Run) -> None:
        self._store, self._run = store, run

    async def admit(self, ask: Ask) -> Admission:
        shown = tokens.claim(ask.authorization) if ask.need is Need.DELETE else None
        token = None if shown is None else await self._run(self._store.read, partial(_verify, shown=shown))
        return Admission(home=homes.EVERYWHERE, token=token)


def _verify(reads: Reads, shown: Claim) -> Token | None:
    return tokens.verify(keys.read(reads), shown)


@final
class AccountGate:
    """Lets in who may come in: accounts, by password or token, and everybody to what is public."""

    def __init__(
        self,
        store: Store,
        settings: AccessSettings,
        authenticator: Authenticator,
        run: Run,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._settings, self._run, self._clock = store, settings, run, clock
        self._authenticator = authenticator

    async def admit(self, ask: Ask) -> Admission:
        """Admit a request.

        Raises:
            ApiError: 401, 403, 404, or 429 for whoever guesses passwords.
        """
        if ask.need is Need.NOTHING:
            return Admission()
        recognise = await self._recognise(ask)
        return await self._run(self._store.read, partial(self._decide, ask, recognise))

    async def _recognise(self, ask: Ask) -> Callable[[Reads], Admission]:
        """Find out who asks, as far as that takes no look into the store; the rest is for the look that decides."""
        text = ask.authorization.strip()
        if not text or tokens.is_empty(text):
            return lambda _: Admission(NOBODY)
        if tokens.is_token(text):
            return partial(self._by_token, ask, tokens.claim(text))
        scheme, _, rest = text.partition(" ")
        if ask.need is Need.WHOEVER and scheme.lower() == "bearer":
            return partial(self._by_bearer, ask, rest.strip())
        try:
            caller = await self._authenticator.basic(text, ask.address)
        except BadCredentials as error:
            ask.mistaken(error)
            raise refused(ask.side, error.message) from None
        return lambda _: Admission(caller)

    def _by_token(self, ask: Ask, shown: Claim | None, reads: Reads) -> Admission:
        token = None if shown is None else _verify(reads, shown)
        if token is None:
            raise refused(ask.side)
        expired = token.expires if self._clock() > token.expires else None
        if expired is not None and ask.need not in MAY_BE_LATE:
            raise refused(ask.side)
        who = ANONYMOUS
        if token.subject is not None:
            known = self._authenticator.principal(reads, token.subject, token.stamp)
            if known is None:
                raise refused(ask.side)
            who = known
        scope = frozenset((token.repository, action) for action in GRANTS.get(token.access, ()))
        return Admission(Caller(who, scope), token.repository, token, expired)

    def _by_bearer(self, ask: Ask, text: str, reads: Reads) -> Admission:
        caller = bearer.read(reads, text, principal=self._authenticator.principal, now=self._clock())
        if caller is None or not caller.lists:  # a token for one repository tells of no other
            raise refused(ask.side)
        return Admission(caller)

    def _decide(self, ask: Ask, recognise: Callable[[Reads], Admission], reads: Reads) -> Admission:
        found = recognise(reads)
        ask.known(found.caller.principal)
        match ask.need:
            case Need.WHOEVER:
                return found
            case Need.ACCOUNT:
                if found.caller.principal.name is None or found.caller.scope is not None:
                    raise refused(ask.side)
                return found
            case Need.IMAGE:
                return self._to_image(ask, found, reads)
            case Need.UPLOAD:
                return self._to_upload(ask, found, reads)
            case _:
                return self._to_repository(ask, found, reads)

    def _to_repository(self, ask: Ask, found: Admission, reads: Reads) -> Admission:
        assert ask.repository is not None, "a route with such a need has a repository in its path"
        given = self._rights(reads, found.caller, ask.repository)
        if suffices(ask.need, given):
            by_password = found.caller.scope is None
            return Admission(found.caller, None if by_password else str(ask.repository), found.token, found.expired)
        if found.caller.principal.name is None or found.token is not None:
            raise refused(ask.side)
        hidden = ask.need is Need.PULL and ask.side is Side.REGISTRY
        raise ApiError(*(refusals.REPOSITORY_NOT_FOUND if hidden else refusals.NO_RIGHT))

    def _to_image(self, ask: Ask, found: Admission, reads: Reads) -> Admission:
        assert ask.image_id is not None, "a route with such a need has an image in its path"
        if found.token is not None:
            self._check_token(ask, found, Action.PULL, reads)
            home: str | None = found.token.repository
        else:
            home = homes.seen_by(reads, self._settings, found.caller, ask.image_id)
        if home is not None and homes.find(reads, home, ask.image_id) is not None:
            return Admission(found.caller, home, found.token)
        raise self._no_image(ask, found)

    @staticmethod
    def _no_image(ask: Ask, found: Admission) -> ApiError:
        """Say no: without credentials, login may help; with them, the image is simply not there."""
        if found.caller.principal.name is None and found.token is None:
            return refused(ask.side)
        return ApiError(*refusals.IMAGE_NOT_FOUND)

    def _to_upload(self, ask: Ask, found: Admission, reads: Reads) -> Admission:
        if found.token is not None:
            self._check_token(ask, found, Action.PUSH, reads)
            return Admission(found.caller, found.token.repository, found.token, found.expired)
        who = found.caller.principal
        if who.name is None:
            raise refused(ask.side)
        return Admission(found.caller, homes.EVERYWHERE if who.admin else homes.of_account(who))

    def _check_token(self, ask: Ask, found: Admission, action: Action, reads: Reads) -> None:
        assert found.token is not None
        if action not in self._rights(reads, found.caller, names.repository(found.token.repository)):
            raise refused(ask.side)

    def _rights(self, reads: Reads, caller: Caller, repository: Repository) -> frozenset[Action]:
        return policy.rights(reads, self._settings, caller, repository)
