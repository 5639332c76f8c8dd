"""How today's clients get a token and use it: their requests, written down byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.wire.v2.members import ANN, BOB, Members, Raw, basic, members

DOCKER = (
    "docker/28.5.1 go/go1.24.8 git-commit/f8215cc kernel/6.1.0 os/linux arch/amd64 "
    "UpstreamClient(Docker-Client/28.5.1 \\(linux\\))"
)
ACCEPT = (
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*"
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with members(tmp_path_factory.mktemp("clients") / "root") as registry:
        registry.push("ann/box", ANN)
        registry.push("ann/public", ANN)
        registry.publish("ann/public")
        yield registry


def send(registry: Members, line: str, *headers: str, body: str = "") -> Raw:
    """Send a request with the headers in the order in which its client writes them."""
    return registry.raw("\n".join([f"{line} HTTP/1.1", "Host: {host}", *headers, "Connection: close"]) + f"\n\n{body}")


def form(registry: Members, agent: str, body: str) -> Raw:
    """Send a form as Go's programs do."""
    kind = "Content-Type: application/x-www-form-urlencoded; charset=utf-8"
    length = f"Content-Length: {len(body)}"
    return send(registry, "POST /v2/token", f"User-Agent: {agent}", length, kind, "Accept-Encoding: gzip", body=body)


def bearer(answer: Raw) -> str:
    assert answer.status == 200, answer.body
    return f"Authorization: Bearer {answer.json()['token']}"


def test_an_engine_that_pushes_schema_1_alone_is_asked_for_nothing_here(registry: Members) -> None:
    """Before 1.10 it shall log in to v1 and push there: a challenge would make it stay."""
    ping = send(registry, "GET /v2/", "User-Agent: docker/1.9.1 go/go1.4.3", "Accept-Encoding: gzip")
    assert ping.status == 404
    assert not {"docker-distribution-api-version", "www-authenticate"} & {name.lower() for name in ping.headers}


def test_docker_logs_in_and_pushes(registry: Members) -> None:
    """Ping, challenge, a token without scope, the ping again; later the identity token it kept, for a push."""
    agent = f"User-Agent: {DOCKER}"
    ping = send(registry, "GET /v2/", agent, "Accept-Encoding: gzip")
    assert ping.status == 401
    assert ping.headers["docker-distribution-api-version"] == "registry/2.0"
    assert re.fullmatch(r'Bearer realm="http://[^"]+/v2/token",service="cas"', ping.headers["www-authenticate"])
    login = send(
        registry,
        "GET /v2/token?account=ann&client_id=docker&offline_token=true&service=cas",
        agent,
        f"Authorization: {basic(ANN)}",
        "Accept-Encoding: gzip",
    )
    assert send(registry, "GET /v2/", agent, bearer(login)).status == 200
    identity = login.json()["refresh_token"]
    push = form(
        registry,
        DOCKER,
        f"client_id=docker&grant_type=refresh_token&refresh_token={identity}"
        "&scope=repository%3Aann%2Fbox%3Apush%2Cpull&service=cas",
    )
    assert push.json()["refresh_token"] == identity
    begun = send(registry, "POST /v2/ann/box/blobs/uploads/", agent, "Content-Length: 0", bearer(push))
    assert begun.status == 202


def test_docker_pulls_as_nobody(registry: Members) -> None:
    """A token without credentials, for what everybody may pull."""
    token = send(registry, "GET /v2/token?scope=repository%3Aann%2Fpublic%3Apull&service=cas", f"User-Agent: {DOCKER}")
    manifest = send(registry, "GET /v2/ann/public/manifests/latest", f"Accept: {ACCEPT}", bearer(token))
    assert manifest.status == 200


def test_docker_search_gets_a_token_for_lists(registry: Members) -> None:
    """With an identity token, search asks for a scope that only it has."""
    identity = registry.ask("GET", "/v2/token", basic(ANN), params={"offline_token": "true"}).json()["refresh_token"]
    body = (
        f"client_id=docker&grant_type=refresh_token&refresh_token={identity}"
        "&scope=registry%3Acatalog%3Asearch&service=cas"
    )
    answer = form(registry, DOCKER, body)
    assert answer.json()["scope"] == "registry:catalog:search"


@pytest.mark.parametrize(
    ("line", "scope"),
    [
        ("HEAD /v2/ann/box/manifests/latest", "repository:ann/box:pull"),
        ("POST /v2/ann/box/blobs/uploads/", "repository:ann/box:pull,push"),
    ],
)
def test_containerd_starts_with_what_it_wants(registry: Members, line: str, scope: str) -> None:
    """No ping: it takes the challenge of the request itself, then posts a form with the password."""
    agent = "User-Agent: containerd/v2.2.0"
    first = send(registry, line, agent, f"Accept: {ACCEPT}", "Content-Length: 0")
    assert first.status == 401
    assert f'scope="{scope}"' in first.headers["www-authenticate"]
    quoted = scope.replace(":", "%3A").replace("/", "%2F").replace(",", "%2C")
    user, _, password = ANN.partition(":")
    password = password.replace("'", "%27").replace(" ", "+")
    token = form(
        registry,
        "containerd/v2.2.0",
        f"client_id=containerd-client&grant_type=password&password={password}&scope={quoted}&service=cas&username={user}",
    )
    assert token.json()["access_token"]
    again = send(registry, line, agent, f"Accept: {ACCEPT}", bearer(token), "Content-Length: 0")
    assert again.status in {200, 202}


def test_containerd_gives_up_a_wrong_password_only_after_get(registry: Members) -> None:
    """401 to its form makes it ask once more by GET; 401 again is final."""
    body = (
        "client_id=containerd-client&grant_type=password&password=wrong"
        "&scope=repository%3Aann%2Fbox%3Apull&service=cas&username=ann"
    )
    assert form(registry, "containerd/v2.2.0", body).status == 401
    line = "GET /v2/token?scope=repository%3Aann%2Fbox%3Apull&service=cas"
    assert send(registry, line, f"Authorization: {basic('ann:wrong')}").status == 401


def test_podman_asks_by_get_with_the_password(registry: Members) -> None:
    """Ping first, then the scope it knows itself; with an identity token it posts."""
    agent = "User-Agent: containers/5.36.2 (github.com/containers/image)"
    version = "Docker-Distribution-Api-Version: registry/2.0"
    assert send(registry, "GET /v2/", agent, version, "Accept-Encoding: gzip").status == 401
    token = send(
        registry,
        "GET /v2/token?account=ann&scope=repository%3Aann%2Fbox%3Apull%2Cpush&service=cas",
        agent,
        f"Authorization: {basic(ANN)}",
    )
    assert send(registry, "HEAD /v2/ann/box/manifests/latest", agent, version, bearer(token)).status == 200
    gone = send(registry, "DELETE /v2/ann/box/manifests/nothing", agent, version, bearer(token))
    assert gone.status == 401
    assert 'error="insufficient_scope"' in gone.headers["www-authenticate"]
    assert 'scope="repository:ann/box:delete"' in gone.headers["www-authenticate"]
    every = send(
        registry,
        "GET /v2/token?account=ann&scope=repository%3Aann%2Fbox%3A%2A&service=cas",
        agent,
        f"Authorization: {basic(ANN)}",
    )
    assert send(registry, "DELETE /v2/ann/box/manifests/nothing", agent, version, bearer(every)).status == 404


def test_crane_copies_between_repositories(registry: Members) -> None:
    """It asks for both ends of a copy in one token, pull of the source and push of the target."""
    agent = "User-Agent: crane/0.20.6 go-containerregistry/0.20.6"
    line = (
        "GET /v2/token?scope=repository%3Abob%2Fcopy%3Apush%2Cpull&scope=repository%3Aann%2Fpublic%3Apull&service=cas"
    )
    token = send(registry, line, agent, f"Authorization: {basic(BOB)}", "Accept-Encoding: gzip")
    blob = registry.ask("GET", "/v2/ann/public/manifests/latest").json()["config"]["digest"]
    mount = f"POST /v2/bob/copy/blobs/uploads/?from=ann%2Fpublic&mount={blob}&origin=example"
    answer = send(registry, mount, agent, "Content-Length: 0", "Content-Type: application/json", bearer(token))
    assert answer.status == 201


def test_the_conformance_suite_reads_the_challenge(registry: Members) -> None:
    """It takes the first line and only what is quoted in it, asks with a password, and wants JSON."""
    first = send(registry, "POST /v2/ann/box/blobs/uploads/", "Content-Length: 0")
    line = first.headers["www-authenticate"]
    scheme, _, rest = line.partition(" ")
    assert scheme.lower() == "bearer"
    told = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    path = told["realm"].partition("://")[2].partition("/")[2]
    query = f"service={told['service']}&scope={told['scope']}"
    token = send(registry, f"GET /{path}?{query}", f"Authorization: {basic(ANN)}", "Accept: application/json")
    answer = send(registry, "POST /v2/ann/box/blobs/uploads/", "Content-Length: 0", bearer(token))
    assert answer.status == 202


def test_curl_needs_a_password_and_nothing_else(registry: Members) -> None:
    """No token, no challenge, one request."""
    answer = send(
        registry, "GET /v2/ann/box/tags/list", f"Authorization: {basic(ANN)}", "User-Agent: curl/8.14.1", "Accept: */*"
    )
    assert (answer.status, answer.json()) == (200, {"name": "ann/box", "tags": ["latest"]})
