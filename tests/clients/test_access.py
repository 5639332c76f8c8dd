"""Public and private repositories side by side, as real clients meet them on a server with accounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import Connect, World
from tests.clients.drivers import CLIENTS
from tests.clients.matrix import marks_of
from tests.support.endpoint import Account, Witness
from tests.support.images import image
from tests.support.registry import EVE

EVERYBODY_ELSE = [pytest.param(False, id="nobody"), pytest.param(EVE, id="somebody-else")]
PULLERS = [pytest.param(name, id=name, marks=marks_of(name)) for name in CLIENTS]


@pytest.mark.parametrize("account", EVERYBODY_ELSE)
@pytest.mark.parametrize("name", PULLERS)
def test_what_is_public_is_pulled_and_what_is_private_is_not(
    name: str, account: Account | bool, connect: Connect, world: World, tmp_path: Path
) -> None:
    """Without an account as with one that has no rights there; and it is the owner's to push to either way."""
    cell = f"{name}-{'eve' if account else 'nobody'}"
    public, private = (image(tmp_path / kind, f"{kind}-{cell}") for kind in ("public", "private"))
    witness = Witness(world.endpoint("plain", "auth"))
    witness.put(f"bob/public-{cell}", public)
    witness.put(f"bob/private-{cell}", private)
    world.publish("plain", "auth", f"bob/public-{cell}")
    client = connect(name, "plain", "auth", account)
    assert client.pull(f"bob/public-{cell}:{public.tag}") == (public.digest if client.exact else public.config)
    with pytest.raises(AssertionError, match=f"private-{cell}"):
        connect(name, "plain", "auth", account).pull(f"bob/private-{cell}:{private.tag}")
    with pytest.raises(AssertionError, match=f"public-{cell}"):
        connect(name, "plain", "auth", account).push(private, f"bob/public-{cell}:{private.tag}")
    assert witness.manifest(f"bob/public-{cell}", private.tag).status == 404
