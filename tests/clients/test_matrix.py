"""Every client by every verb it has, plain and TLS, open and with accounts.

What a client pushed is read back by the witness, and what it pulls, lists or deletes the witness put there. Images
are made of a cell's own name, so no client has seen their bytes before.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from tests.clients.conftest import Connect, World
from tests.clients.drivers import CLIENTS, Client, Crane, Docker, Oras, Podman, Regctl, Skopeo
from tests.clients.matrix import cells, marks_of
from tests.support.endpoint import Account, Witness
from tests.support.images import Image, image
from tests.support.registry import BOB, EVE

Listing = Podman | Skopeo | Crane | Oras | Regctl


def each(verb: str) -> pytest.MarkDecorator:
    """Parametrise by every cell of a verb."""
    rows = []
    for client, _, transport, mode in cells(verb):
        identifier = f"{client}-{transport}-{mode}"
        rows.append(pytest.param(client, transport, mode, id=identifier, marks=marks_of(client)))
    return pytest.mark.parametrize(("name", "transport", "mode"), rows)


def made(folder: Path, verb: str, name: str, transport: str, mode: str) -> tuple[str, Image]:
    """Give a repository and an image that are this cell's alone."""
    cell = f"{verb}-{name}-{transport}-{mode}"
    return f"bob/{cell}", image(folder / "image", cell)


def expected(client: Client, pushed: Image) -> str:
    return pushed.digest if client.exact else pushed.config


@each("push")
def test_what_a_client_pushes_is_there(
    name: str, transport: str, mode: str, connect: Connect, world: World, tmp_path: Path
) -> None:
    """The same image, byte for byte where the client does not pack anew."""
    repository, pushed = made(tmp_path, "push", name, transport, mode)
    client, witness = connect(name, transport, mode), Witness(world.endpoint(transport, mode))
    client.push(pushed, f"{repository}:{pushed.tag}")
    assert witness.config(repository, pushed.tag) == pushed.config
    if client.exact:
        assert witness.digest(repository, pushed.tag) == pushed.digest


@each("pull")
def test_a_client_pulls_what_is_there(
    name: str, transport: str, mode: str, connect: Connect, world: World, tmp_path: Path
) -> None:
    """Clients check digests themselves; what they end up with is the image that was put there."""
    repository, put = made(tmp_path, "pull", name, transport, mode)
    Witness(world.endpoint(transport, mode)).put(repository, put)
    client = connect(name, transport, mode)
    assert client.pull(f"{repository}:{put.tag}") == expected(client, put)


@each("list")
def test_a_client_lists_the_tags(
    name: str, transport: str, mode: str, connect: Connect, world: World, tmp_path: Path
) -> None:
    """All of them, and of this repository only."""
    repository, put = made(tmp_path, "list", name, transport, mode)
    for tag in ("a", "b"):
        Witness(world.endpoint(transport, mode)).put(repository, put, tag)
    Witness(world.endpoint(transport, mode)).put(f"{repository}-more", put, "c")
    assert cast("Listing", connect(name, transport, mode)).tags(repository) == {"a", "b"}


@each("delete")
def test_what_a_client_deletes_is_gone(
    name: str, transport: str, mode: str, connect: Connect, world: World, tmp_path: Path
) -> None:
    """By tag and by digest, and nothing else goes with it."""
    repository, put = made(tmp_path, "delete", name, transport, mode)
    other = image(tmp_path / "other", f"other-{repository[4:]}")
    witness = Witness(world.endpoint(transport, mode))
    witness.put(repository, put)
    witness.put(repository, other)
    cast("Skopeo | Crane | Oras | Regctl", connect(name, transport, mode)).delete(f"{repository}:{put.tag}")
    assert witness.manifest(repository, put.tag).status == 404
    assert witness.manifest(repository, put.digest).status == 404
    assert witness.digest(repository, other.tag) == other.digest


@each("search")
def test_a_client_finds_a_pushed_repository(
    name: str, transport: str, mode: str, connect: Connect, world: World, tmp_path: Path
) -> None:
    """By a part of its name: what is public by everybody, what is private by its owner alone."""
    repository, put = made(tmp_path, "search", name, transport, mode)
    Witness(world.endpoint(transport, mode)).put(repository, put)

    def found_by(account: Account | bool) -> bool:
        client = connect(name, transport, mode, account)
        assert isinstance(client, Podman | Docker)
        found = client.search(repository[5:])
        assert found <= {repository}
        return bool(found)

    if mode == "auth":
        assert found_by(BOB) == CLIENTS[name].searches_as_itself
        assert not found_by(EVE)
        assert not found_by(account=False)
        if name == "podman":  # without a term it asks for the catalogue, as itself
            for account in (BOB, EVE):
                client = connect(name, transport, mode, account)
                assert isinstance(client, Podman)
                assert (repository in client.search("")) == (account is BOB)
        world.publish(transport, mode, repository)
    assert found_by(account=True)
    assert found_by(account=False)


@each("login")
def test_a_login_is_refused_with_a_wrong_password_and_remembered_with_the_right_one(
    name: str, transport: str, mode: str, connect: Connect, world: World, tmp_path: Path
) -> None:
    """Before it the client cannot pull what is private; after it, it can."""
    repository, put = made(tmp_path, "login", name, transport, mode)
    Witness(world.endpoint(transport, mode)).put(repository, put)
    client = connect(name, transport, mode, account=False)
    with pytest.raises(AssertionError):
        client.pull(f"{repository}:{put.tag}")
    assert not client.log_in(Account(BOB.name, "not it"))
    assert client.log_in(BOB)
    assert client.pull(f"{repository}:{put.tag}") == expected(client, put)
