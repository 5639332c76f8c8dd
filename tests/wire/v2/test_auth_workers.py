"""Accounts across processes, protocols and restarts: one keyring, one set of accounts, one application."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from api.access import keys
from api.access.accounts import Accounts
from api.access.settings import AccessSettings, Mode
from api.app import build
from api.config import HttpSettings
from cas import Store
from tests.support.serving import StartServer
from tests.wire.harness import PATIENCE_S, Clock, serving
from tests.wire.v2.members import ANN, AUTH, BOB, basic, members


def serve(stack: ExitStack, root: Path, access: AccessSettings = AUTH) -> httpx2.Client:
    """Serve the whole application over a store that is there."""
    store, clock = stack.enter_context(Store.open(root, create=True)), Clock()
    server = stack.enter_context(serving(build(store, HttpSettings(), access=access, clock=clock)))
    url = "http://{}:{}".format(*server.address)
    return stack.enter_context(httpx2.Client(base_url=url, timeout=PATIENCE_S, trust_env=False))


def test_tokens_hold_for_every_worker_and_survive_a_crash(server: StartServer, tmp_path: Path) -> None:
    """Both kinds; and every worker sees at once that a key was taken off the ring, or a password changed."""
    running = server(workers=2, flags=("--mode", "auth"))
    own_each = httpx2.Limits(max_keepalive_connections=0)
    with (
        Store.open(running.root) as store,
        httpx2.Client(timeout=PATIENCE_S, trust_env=False, limits=own_each) as client,
    ):
        accounts = Accounts(store, AUTH, time.time)
        accounts.add(*ANN.split(":"))
        token = f"{running.url}/v2/token?offline_token=true"
        login = client.get(token, headers={"Authorization": basic(ANN)}).json()

        def statuses(url: str) -> set[tuple[int, int]]:
            """Ask so often, on a connection each, that every worker is asked."""
            form = {"grant_type": "refresh_token", "refresh_token": login["refresh_token"]}
            ping = {"Authorization": f"Bearer {login['token']}"}
            return {
                (
                    client.get(f"{url}/v2/", headers=ping).status_code,
                    client.post(f"{url}/v2/token", data=form).status_code,
                )
                for _ in range(8)
            }

        assert statuses(running.url) == {(200, 200)}
        running.kill()
        again = server(root=running.root, workers=2, flags=("--mode", "auth"))
        assert statuses(again.url) == {(200, 200)}
        store.change(lambda names: keys.rotate(names, time.time(), keep=0))
        assert statuses(again.url) == {(401, 200)}
        accounts.change("ann", password="another")
        assert statuses(again.url) == {(401, 401)}


def test_docker_search_finds_with_an_identity_token_what_its_owner_may_pull(tmp_path: Path) -> None:
    """A client that kept no password searches with a token for lists; others find nothing of it."""
    with members(tmp_path / "root") as registry:
        registry.push("ann/needle", ANN)
    with ExitStack() as stack:
        client = serve(stack, tmp_path / "root")
        found = []
        for who in (ANN, BOB):
            query = {"offline_token": "true", "service": "cas"}
            login = client.get("/v2/token", params=query, headers={"Authorization": basic(who)}).json()
            form = {"grant_type": "refresh_token", "refresh_token": login["refresh_token"]}
            token = client.post("/v2/token", data=form | {"scope": "registry:catalog:search"}).json()["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            results = client.get("/v1/search", params={"q": "needle"}, headers=headers).json()["results"]
            found.append([one["name"] for one in results])
        assert found == [["ann/needle"], []]


@pytest.mark.parametrize("path", ["/v2/", "/v2", "/v2/token", "/v2/ann/box/tags/list", "/v2/_catalog"])
def test_there_is_no_v2_where_an_index_vouches(tmp_path: Path, path: str) -> None:
    """Clients look for the header before they decide which protocol is spoken here."""
    with ExitStack() as stack:
        client = serve(stack, tmp_path / "root", AccessSettings(mode=Mode.TOKEN, index_url="http://127.0.0.1:9"))
        for header in (None, basic(ANN)):
            answer = client.get(path, headers={} if header is None else {"Authorization": header})
            assert answer.status_code == 404
            assert "docker-distribution-api-version" not in answer.headers
            assert "www-authenticate" not in answer.headers


def test_an_account_is_one_in_both_protocols(tmp_path: Path) -> None:
    """One password for all of them."""
    with members(tmp_path / "root"):
        pass
    with ExitStack() as stack:
        client = serve(stack, tmp_path / "root")
        for path in ("/v2/", "/v1/users"):
            assert client.get(path, headers={"Authorization": basic(ANN)}).status_code == 200
            assert client.get(path, headers={"Authorization": basic("ann:wrong")}).status_code == 401
