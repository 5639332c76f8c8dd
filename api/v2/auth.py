"""Admission: who sent a request, and whether they may have what its route needs, before anything else happens.

Knows the challenge that tells a client where to get a token, and which one. Passwords are accepted on every route and
offered on none: a client that was offered both takes what it knows worse. Rights are decided by the policy alone.

Nobody in particular is always told to say who they are, whether there is such a repository or not; somebody who is
known and may not is told the same in both cases, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import Enum, auto
from typing import Final

from api.access import bearer, policy
from api.access.bearer import SERVICE, Resource
from api.access.errors import BadCredentials
from api.access.principal import NOBODY, Action, Caller, Principal
from api.access.settings import AccessSettings, Mode
from api.basis import Basis, look_up, whole
from api.content.repository import Repository
from api.origin import origin
from api.v2 import names, token_scopes
from api.v2.admitted import Admitted, Wanted
from api.v2.call import Call, Need
from api.v2.errors import DENIED, ONE_LINE, UNAUTHORIZED, Refused
from cas import Reads

SERVICE_PATH: Final = "/v2/token"  # no repository's: all of theirs have something behind the name
_PULL: Final = frozenset({Action.PULL})
_INVALID: Final = "invalid_token"
_TOO_LITTLE: Final = "insufficient_scope"
_NOT_GOOD: Final = "the token is not, or no longer, good; get another one"
_SAY_WHO: Final = "authentication required: say who you are, or get a token for this"

# Tells who somebody is by what they showed, from what the store has now; None if that is not, or no longer, good.
Recognise = Callable[[Reads], Caller | None]


class Verdict(Enum):
    """What becomes of a request."""

    ADMITTED = auto()
    STRANGER = auto()
    TOO_LITTLE = auto()
    DENIED = auto()


async def admit(admitted: Admitted, call: Call, need: Need) -> Caller:
    """Tell who calls, if they may have what they need.

    Raises:
        Refused: 401 with a challenge, or 403.
        TooManyFailures: 429.
    """
    if call.registry.access.mode == Mode.OPEN or need is Need.NOTHING:
        return NOBODY
    lines = call.request.headers.getlist("authorization")
    if len(lines) > 1:
        raise _challenge(call, need, ONE_LINE)
    shown, wanted = lines[0] if lines else None, _wanted(call, need)
    caller = admitted.find(shown, wanted)
    if caller is not None:
        call.known(caller.principal)
        return caller
    caller, basis = await _judged(call, wanted, shown)
    if call.registry.access.htpasswd is None or caller.principal.name is None:  # else a file of its own has a say
        admitted.keep(shown, wanted, caller, basis)
    return caller


async def _judged(call: Call, wanted: Wanted, shown: str | None) -> tuple[Caller, Basis]:
    """Find out who calls and whether they may have what they want; return also what that rests on.

    Raises:
        Refused, TooManyFailures: see `admit`.
    """
    access, need = call.registry.access, wanted.need
    scheme, _, token = (shown or "").strip().partition(" ")
    is_token = scheme.lower() == "bearer"
    recognise = _by_token(call, token.strip()) if is_token else await _by_password(call, need, shown)

    def look(reads: Reads) -> tuple[Caller | None, Verdict]:
        caller = recognise(reads)
        return caller, Verdict.STRANGER if caller is None else judge(reads, access, wanted, caller)

    (caller, verdict), basis = await call.registry.threads.run(look_up, call.store, look, whole)
    if caller is None:
        raise _challenge(call, need, *((_NOT_GOOD, _INVALID) if is_token else (BadCredentials().message, None)))
    call.known(caller.principal)
    if verdict is Verdict.ADMITTED:
        return caller, basis
    if verdict is Verdict.DENIED:
        raise Refused(DENIED, message=await call.registry.threads.run(_denial, call, need, caller.principal))
    raise _challenge(call, need, _SAY_WHO, _TOO_LITTLE if verdict is Verdict.TOO_LITTLE else None)


def _by_token(call: Call, text: str) -> Recognise:
    token, principal, now = bearer.Token(text), call.registry.authenticator.principal, call.now
    return lambda reads: token.caller(reads, principal=principal, now=now)


async def _by_password(call: Call, need: Need, shown: str | None) -> Recognise:
    """Compare a password now; whether it is still the account's is left to every look.

    Raises:
        Refused: 401, it is wrong.
        TooManyFailures: 429.
    """
    authenticator = call.registry.authenticator
    try:
        caller = await authenticator.basic(shown, call.address)
    except BadCredentials as error:
        call.mistaken(error)
        raise _challenge(call, need, error.message) from None
    name, stamp = caller.principal.name, caller.principal.stamp

    def recognise(reads: Reads) -> Caller | None:
        if name is None:
            return caller
        known = authenticator.principal(reads, name, stamp)
        return None if known is None else replace(caller, principal=known)

    return recognise


def judge(reads: Reads, access: AccessSettings, wanted: Wanted, caller: Caller) -> Verdict:
    """Decide whether a caller may have what a route needs; blocking.

    Whoever shows a token may have what everybody may have without one, whatever the token was made for.
    """
    by_token, known = caller.scope is not None, caller.principal.name is not None
    if wanted.repository is None:
        if not (by_token or known):
            return Verdict.STRANGER
        return Verdict.ADMITTED if wanted.need is Need.LOGIN or caller.lists else Verdict.TOO_LITTLE

    def may(who: Caller, repository: Repository, actions: frozenset[Action]) -> bool:
        return actions <= policy.rights(reads, access, who, repository)

    owner, source = Caller(caller.principal), wanted.source
    if may(caller, wanted.repository, wanted.need.actions):
        if by_token and source is not None and not may(caller, source, _PULL) and may(owner, source, _PULL):
            return Verdict.TOO_LITTLE  # another token of the same owner would let the mount succeed
        return Verdict.ADMITTED
    if known and not (by_token and may(owner, wanted.repository, wanted.need.actions)):
        return Verdict.DENIED
    return Verdict.TOO_LITTLE if by_token else Verdict.STRANGER


def _wanted(call: Call, need: Need) -> Wanted:
    if not need.actions:
        return Wanted(need)
    source = _source(call)
    return Wanted(need, call.repository, None if source is None else Repository.of(source))


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
