"""Routes of accounts: login, sign-up, a new password. Without accounts everybody is told that all is well."""

from __future__ import annotations

from functools import partial

from starlette.responses import Response
from starlette.types import ASGIApp

from api.access.errors import UserExists
from api.access.settings import Mode
from api.errors import ApiError
from api.v1 import parsing, refusals
from api.v1.answers import NEVER_CACHE, answer
from api.v1.call import Call

# Old clients log in by signing up, and go on to the login proper only after exactly these 34 bytes.
TAKEN = "Username or email already exists"


async def get_users(_: Call) -> ASGIApp:
    """Row 26: login. The gate has looked at the password."""
    return answer("OK")


async def post_users(call: Call) -> ASGIApp:
    """Row 27: sign-up."""
    registry = call.registry
    if registry.access.mode != Mode.OPEN and not registry.access.signup:
        raise ApiError(*refusals.NO_SIGN_UP)
    name, password, email = parsing.new_account(await _body(call))
    if registry.access.mode == Mode.OPEN:  # nobody is asked for an account, so none is made in a stranger's name
        return answer("User Created", 201)
    add = partial(registry.authenticator.accounts.add, name, password, email=email)
    try:
        await registry.authenticator.work(call.address, add)
    except UserExists:
        return answer(TAKEN, 400)
    return answer("User Created", 201)


async def put_user(call: Call) -> ASGIApp:
    """Row 28: a new password or address, for oneself or by an admin."""
    registry, name = call.registry, call.request.path_params["name"]
    who = call.admission.caller.principal
    if registry.access.mode != Mode.OPEN and not (who.admin or who.name == name):
        raise ApiError(*refusals.OTHER_USER)
    password, email = parsing.account_change(await _body(call))
    if registry.access.mode != Mode.OPEN:
        change = partial(registry.authenticator.accounts.change, name, password=password, email=email)
        await registry.authenticator.work(call.address, change)
    return Response(status_code=204, headers=NEVER_CACHE)


async def _body(call: Call) -> bytes:
    """Take what somebody sends of whom nothing is known yet: not more of it than an account needs is held.

    Raises:
        ApiError: 400 for more.
    """
    body = await call.small_body()
    if body is None:
        raise ApiError(*refusals.ACCOUNT_TOO_LARGE)
    return body
