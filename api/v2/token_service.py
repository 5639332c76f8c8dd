"""The token service: passwords and refresh tokens in, Bearer tokens out, in both forms that clients speak.

To ask for more than one may have is no mistake: the answer grants less. A wrong password is one, and 401, which is the
only refusal that clients understand here.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl

from starlette.responses import Response
from starlette.types import ASGIApp

from api.access import bearer, policy, refresh
from api.access.bearer import REPOSITORY, SERVICE, Resource
from api.access.errors import BadCredentials
from api.access.principal import Caller, Principal
from api.access.settings import Mode
from api.content.repository import Repository
from api.v2 import token_scopes
from api.v2.call import Call
from api.v2.errors import JSON, NO_SUCH_ROUTE, ONE_LINE, UNAUTHORIZED, Problem, Refused
from cas import Names, Reads

MAX_FORM_BYTES: Final = 64 * 1024  # as much as a query can have
_MOST_FIELDS: Final = 1000
_FORM: Final = "not a form that can be read"
_GRANT: Final = "use grant_type=password or grant_type=refresh_token"
_OVER: Final = "this refresh token is not, or no longer, good; log in again"
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asks for, and who that turned out to be.

    Attributes:
        who: whose rights limit what is granted.
        wanted: what they want to do.
        offline: whether they want a refresh token too.
        renewed: the refresh token they came with.
    """

    who: Principal
    wanted: Sequence[Resource]
    offline: bool = False
    renewed: str | None = None


async def get(call: Call) -> ASGIApp:
    """Answer GET: a password in the header, or nobody in particular."""
    _offered(call)
    shown = call.request.headers.getlist("authorization")
    if len(shown) > 1:
        raise _wrong(ONE_LINE)
    caller = await _logged_in(call, shown[0] if shown else None)
    wanted = token_scopes.parse(value for key, value in call.query() if key == "scope")
    offline = call.parameter("offline_token") == "true"
    return await call.registry.threads.run(_answer, call, Order(caller.principal, wanted, offline))


async def post(call: Call) -> ASGIApp:
    """Answer POST: a form after OAuth2, with a password or a refresh token."""
    _offered(call)
    form = await _form(call)
    wanted = token_scopes.parse([form.get("scope", "")])
    order = Order(Principal(None), wanted, offline=form.get("access_type") == "offline")
    kind = form.get("grant_type")
    if kind == "refresh_token":
        return await call.registry.threads.run(_renew, call, order, form.get("refresh_token", ""))
    if kind != "password":
        raise Refused(Problem(400, "UNSUPPORTED", _GRANT))
    user, password = form.get("username", ""), form.get("password", "").encode("utf-8", "surrogateescape")
    try:
        caller = await call.registry.authenticator.password(user, password, call.address)
    except BadCredentials as error:
        call.mistaken(error)
        raise _wrong(error.message) from None
    return await call.registry.threads.run(_answer, call, replace(order, who=caller.principal))


def _offered(call: Call) -> None:
    """Refuse where nobody needs a token: clients then go on without."""
    if call.registry.access.mode != Mode.AUTH:
        raise Refused(NO_SUCH_ROUTE)


async def _logged_in(call: Call, header: str | None) -> Caller:
    try:
        return await call.registry.authenticator.basic(header, call.address)
    except BadCredentials as error:
        call.mistaken(error)
        raise _wrong(error.message) from None


async def _form(call: Call) -> dict[str, str]:
    body = await call.body(MAX_FORM_BYTES)
    try:
        # Passwords are bytes to whoever checks them: what is no UTF-8 comes out as it went in.
        text = body.decode("utf-8", "surrogateescape")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="surrogateescape"))
    except ValueError:
        raise Refused(Problem(400, "UNSUPPORTED", _FORM)) from None


def _renew(call: Call, order: Order, token: str) -> Response:
    def owner(reads: Reads) -> Principal | None:
        found = refresh.owner(reads, token)
        return None if found is None else call.registry.authenticator.principal(reads, *found)

    who = call.store.read(owner)
    if who is None:
        raise _wrong(_OVER)
    return _answer(call, replace(order, who=who, offline=False, renewed=token))


def _answer(call: Call, order: Order) -> Response:
    """Grant what can be granted of an order; blocking."""
    call.known(order.who)
    now, life_s = call.now, call.registry.access.token_s

    def sign(reads: Reads) -> tuple[str, list[Resource]]:
        granted = [one for one in (_granted(reads, call, order.who, wish) for wish in order.wanted) if one.actions]
        unique = secrets.token_urlsafe(bearer.ID_BYTES)
        return bearer.issue(reads, order.who, granted, now=now, life_s=life_s, unique=unique), granted

    token, granted = call.store.read(sign)
    content: dict[str, object] = {
        "token": token,
        "access_token": token,
        "expires_in": life_s,
        "issued_at": datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "scope": token_scopes.write(granted),
    }
    kept = order.renewed or (_keep(call, order.who) if order.offline else None)
    if kept is not None:
        content["refresh_token"] = kept
    return Response(json.dumps(content).encode(), headers=_NO_STORE, media_type=JSON)


def _granted(reads: Reads, call: Call, who: Principal, wish: Resource) -> Resource:
    """Leave of a wish what its owner may do now; lists show everybody only what they may see."""
    if wish.type != REPOSITORY:
        return wish
    rights = policy.rights(reads, call.registry.access, Caller(who), Repository.of(wish.name))
    return replace(wish, actions=tuple(action for action in wish.actions if action in rights))


def _keep(call: Call, who: Principal) -> str | None:
    """Make a refresh token for somebody with an account."""
    if who.name is None:
        return None
    name, secret = who.name, secrets.token_bytes(refresh.SECRET_BYTES)

    def edit(names: Names) -> str:
        return refresh.issue(names, name, who.stamp, secret, call.now)

    return call.store.change(edit)


def _wrong(message: str) -> Refused:
    """Refuse credentials; here, and nowhere else, Basic is what to come with."""
    return Refused(UNAUTHORIZED, message=message, headers={"WWW-Authenticate": f'Basic realm="{SERVICE}"'})
