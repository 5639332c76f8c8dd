"""Admission: who sent a request, and whether they may have what its route needs, before anything else happens.

Knows the challenge that tells a client where to get a token, and which one. Passwords are accepted on every route and
offered on none: a client that was offered both takes what it knows worse. Rights are decided by the policy alone.

Nobody in particular is always told to say who they are, whether there is such a repository or not; somebody who is
known and may not is told the same in both cases, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

from api.access import bearer, policy
from api.access.bearer import SERVICE, Resource
from api.access.errors import BadCredentials
from api.access.principal import NOBODY, Action, Caller, Principal
from api.access.settings import Mode
from api.content.repository import Repository
from api.origin import origin
from api.v2 import names, token_scopes
from api.v2.call import Call, Need
from api.v2.errors import DENIED, ONE_LINE, UNAUTHORIZED, Refused
from cas import Reads

SERVICE_PATH: Final = "/v2/token"  # no repository's: all of theirs have something behind the name
_INVALID: Final = "invalid_token"
_TOO_LITTLE: Final = "insufficient_scope"
_NOT_GOOD: Final = "the token is not, or no longer, good; get another one"
_SAY_WHO: Final = "authentication required: say who you are, or get a token for this"


class Verdict(Enum):
    """What becomes of a request."""

    ADMITTED = auto()
    STRANGER = auto()
    TOO_LITTLE = auto()
    DENIED = auto()


async def admit(call: Call, need: Need) -> Caller:
    """Tell who calls, if they may have what they need.

    Raises:
        Refused: 401 with a challenge, or 403.
        TooManyFailures: 429.
    """
    if call.registry.access.mode == Mode.OPEN or need is Need.NOTHING:
        return NOBODY
    shown = call.request.headers.getlist("authorization")
    if len(shown) > 1:
        raise _challenge(call, need, ONE_LINE)
    scheme, _, token = (shown[0] if shown else "").strip().partition(" ")
    if scheme.lower() == "bearer":
        caller, verdict = await call.registry.threads.run(_judge_token, call, need, token.strip())
        if caller is None:
            raise _challenge(call, need, _NOT_GOOD, _INVALID)
    else:
        try:
            caller = await call.registry.authenticator.basic(shown[0] if shown else None, call.address)
        except BadCredentials as error:
            call.mistaken(error)
            raise _challenge(call, need, error.message) from None
        verdict = await call.registry.threads.run(_judge, call, need, caller)
    call.known(caller.principal)
    if verdict is Verdict.ADMITTED:
        return caller
    if verdict is Verdict.DENIED:
        raise Refused(DENIED, message=await call.registry.threads.run(_denial, call, need, caller.principal))
    raise _challenge(call, need, _SAY_WHO, _TOO_LITTLE if verdict is Verdict.TOO_LITTLE else None)


def _judge_token(call: Call, need: Need, token: str) -> tuple[Caller | None, Verdict]:
    def look(reads: Reads) -> tuple[Caller | None, Verdict]:
        caller = bearer.read(reads, token, principal=call.registry.authenticator.principal, now=call.now)
        return caller, Verdict.STRANGER if caller is None else judge(reads, call, need, caller)

    return call.store.read(look)


def _judge(call: Call, need: Need, caller: Caller) -> Verdict:
    return call.store.read(lambda reads: judge(reads, call, need, caller))


def judge(reads: Reads, call: Call, need: Need, caller: Caller) -> Verdict:
    """Decide whether a caller may have what a route needs; blocking.

    Whoever shows a token may have what everybody may have without one, whatever the token was made for.
    """
    by_token, known = caller.scope is not None, caller.principal.name is not None
    if not need.actions:
        if not (by_token or known):
            return Verdict.STRANGER
        return Verdict.ADMITTED if need is Need.LOGIN or caller.lists else Verdict.TOO_LITTLE

    def may(who: Caller) -> bool:
        return need.actions <= policy.rights(reads, call.registry.access, who, call.repository)

    if may(caller):
        return Verdict.TOO_LITTLE if by_token and _wants_more(reads, call, caller) else Verdict.ADMITTED
    if known and not (by_token and may(Caller(caller.principal))):
        return Verdict.DENIED
    return Verdict.TOO_LITTLE if by_token else Verdict.STRANGER


def _wants_more(reads: Reads, call: Call, caller: Caller) -> bool:
    """Tell whether another token of the same owner would let a mount succeed: then its client is sent for that one."""
    source = _source(call)
    if source is None:
        return False

    def may_pull(who: Caller) -> bool:
        return Action.PULL in policy.rights(reads, call.registry.access, who, Repository.of(source))

    return not may_pull(caller) and may_pull(Caller(caller.principal))


def _source(call: Call) -> str | None:
    """Return the repository that a blob is to be mounted from, if that is another one."""
    source = call.parameter("from") if call.request.method == "POST" else None
    return source if source is not None and source != call.name and names.is_repository(source) else None


def _challenge(call: Call, need: Need, message: str, error: str | None = None) -> Refused:
    """Refuse with the address of the token service and the scope to ask it for, in one line of header."""
    told = {
        "realm": f"{origin(call.request.scope, call.registry.http)}{SERVICE_PATH}",
        "service": SERVICE,
        "scope": token_scopes.write(_scopes(call, need)),
        "error": error,
    }
    line = "Bearer " + ",".join(f'{name}="{value}"' for name, value in told.items() if value)
    return Refused(UNAUTHORIZED, message=message, headers={"WWW-Authenticate": line})


def _scopes(call: Call, need: Need) -> Iterator[Resource]:
    """Tell which scopes a request takes; a mount takes one of its source as well."""
    if need is Need.CATALOGUE:
        yield token_scopes.of_lists()
    elif need.actions:
        yield token_scopes.of_repository(call.name, need.actions)
        source = _source(call)
        if source is not None:
            yield token_scopes.of_repository(source, {Action.PULL})


def _denial(call: Call, need: Need, who: Principal) -> str:
    """Say what is wanting, and no more than somebody may know: what there is of what they may not pull is not told."""
    has = call.store.read(lambda reads: policy.rights(reads, call.registry.access, Caller(who), call.repository))
    wanting = f"you may not {' or '.join(sorted(need.actions - has))} here"
    if has:
        return f"{wanting}: of {call.name} you may {' and '.join(sorted(has))}, and no more"
    return f"{wanting}: {call.name} is not yours, or does not exist"
