"""Paths, methods, names and errors of the v2 protocol over real sockets: always an answer that clients can read."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from pathlib import Path

import pytest

from api.v2.routes import TABLE
from cas import DiskFailed, NoSpace
from tests.support.powercut import ForgetfulDisk
from tests.wire.v2.content import Home, index
from tests.wire.v2.pushing import Client, Pushed, code, pushing, sha256

ZERO = "sha256:" + "0" * 64
_BUILT = "go/go1.4.2 git-commit/7c8fca2 kernel/3.16.0-4-amd64 os/linux arch/amd64"
SCHEMA_1 = [
    "Go 1.1 package http",  # 1.5 does not say who it is before it knows whom it talks to
    f"docker/1.6.2 {_BUILT}",
    f"docker/1.7.1 {_BUILT}",
    f"docker/1.8.2-el7.centos {_BUILT}",
    f"docker/1.9.1 {_BUILT}",
]
SCHEMA_2 = [
    f"docker/1.10.3 {_BUILT}",
    f"docker/1.13.1 {_BUILT} UpstreamClient(Docker-Client/1.13.1 \\(linux\\))",
    f"docker/17.12.0-ce {_BUILT}",
    f"docker/28.5.1 {_BUILT}",
    "Go-http-client/1.1",
    "containers/5.24.1 (github.com/containers/image)",
]
NAMES = [
    "a",
    "0",
    "a/b",
    "library/a",
    "a.b_c__d-e---f/g",
    "a/tags/list",
    "tags/list",
    "x/blobs/uploads",
    "blobs/uploads",
    "x/blobs",
    "x/manifests/latest",
    "manifests",
    "referrers/referrers",
    "token",
    "v2",
    "/".join(["p"] * 128),
    "n" * 255,
]
BAD_NAMES = ["A", "a/B", "-a", "a-", "a..b", "a___b", "a._b", "a//b", "_catalog/x", "a b", "a:b", "n" * 256, "\u00e4"]


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_ping_says_which_protocol_this_is(client: Client, path: str, method: str) -> None:
    """200 with an empty JSON object, with and without the slash."""
    answer = client.ask(method, path)
    assert (answer.status_code, answer.content) == (200, b"{}" * (method == "GET"))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@pytest.mark.parametrize("agent", SCHEMA_1)
def test_engines_that_push_schema_1_alone_are_sent_to_v1(client: Client, agent: str, path: str) -> None:
    """The ping is 404 without the header, as from a registry that knows only v1; nothing else differs for them."""
    answer = client.ask("GET", path, User_Agent=agent)
    assert (answer.status_code, list(answer.json())) == (404, ["error"])
    assert "docker-distribution-api-version" not in answer.headers
    assert client.ask("GET", "/v2/_catalog", User_Agent=agent).status_code == 200


@pytest.mark.parametrize("agent", [*SCHEMA_2, ""])
def test_engines_that_push_schema_2_are_told_of_v2(client: Client, agent: str) -> None:
    """From 1.10 on, and whoever else comes."""
    answer = client.ask("GET", "/v2/", User_Agent=agent)
    assert answer.status_code == 200
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


@pytest.mark.parametrize("name", NAMES)
def test_a_repository_may_be_called_almost_anything(client: Client, name: str) -> None:
    """Also like the ends of other paths; it is shown as the client spelled it."""
    home = Home(client, name=name)
    image = home.push(home.image(), "t")
    assert home.get("t").content == home.get(image.digest).content == image.body
    assert client.ask("GET", f"/v2/{name}/tags/list").json() == {"name": name, "tags": ["t"]}
    assert home.referrers(image.digest) == []
    assert client.blob(name, sha256(home.config)).content == home.config
    assert home.delete(image.digest) == 202
    assert home.get("t").status_code == 404


def test_a_short_name_and_its_full_name_are_one_repository(client: Client) -> None:
    """`foo` is `library/foo`; each answer uses the spelling of its request."""
    short, full = Home(client, name="one-of-two"), "library/one-of-two"
    image = short.push(short.image(), "t")
    got = client.ask("GET", f"/v2/{full}/manifests/t")
    assert got.content == image.body
    assert client.ask("GET", f"/v2/{full}/tags/list").json()["name"] == full
    answer = client.ask("PUT", f"/v2/{full}/manifests/u", image.body, content_type=image.type)
    assert answer.headers["location"] == f"/v2/{full}/manifests/{image.digest}"
    assert short.tags() == ["t", "u"]
    listed = client.ask("GET", "/v2/_catalog?last=one-of-tw&n=1").json()["repositories"]
    assert listed == ["one-of-two"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_cannot_be_a_name_is_refused(client: Client, name: str) -> None:
    """400 NAME_INVALID, by every route that has a name and every method."""
    for route in TABLE:
        if "{name}" not in route.path:
            continue
        path = route.path.replace("{name}", name).replace("{digest}", ZERO).replace("{reference}", "t")
        for method in route.methods:
            answer = client.ask(method, path.replace("{id}", "x"))
            assert (answer.status_code, code(answer)) == (400, "NAME_INVALID"), path


def test_every_path_says_which_methods_it_knows(client: Client) -> None:
    """405 with `Allow` for the others, before anything else is looked at."""
    for route in TABLE:
        path = route.path.replace("{name}", "a/b").replace("{digest}", ZERO)
        path = path.replace("{reference}", "t").replace("{id}", "x")
        known = sorted({*route.methods, *(["HEAD"] if "GET" in route.methods else [])})
        for method in {"GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "BREW"} - set(known):
            answer = client.ask(method, path)
            assert (answer.status_code, code(answer)) == (405, "UNSUPPORTED"), (method, path)
            assert answer.headers["allow"] == ", ".join(known)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/a",
        "/v2/a/b/c",
        "/v2/a/tags",
        "/v2/a/tags/list/",
        "/v2/a/manifests/",
        "/v2/a/blobs/",
        "/v2/a/referrers/",
        "/v2/_catalog/",
        "/v2//",
        "/v2/_nothing",
        "/v2/_catalog/x",
    ],
)
def test_an_unknown_path_is_404_in_json(client: Client, path: str) -> None:
    """Never a page for people, never a redirect."""
    answer = client.ask("GET", path)
    assert (answer.status_code, code(answer)) == (404, "UNSUPPORTED")
    assert client.ask("HEAD", path).content == b""


@pytest.mark.parametrize("path", ["//tags/list", "/a//tags/list", "/a%2Fb/tags/list", "/a/%2e%2e/tags/list", "/%/x"])
@pytest.mark.parametrize("ending", ["", "?n=1"])
def test_paths_that_could_mean_two_things_are_refused(registry: Pushed, path: str, ending: str) -> None:
    """400 in the shape of every other error, also for what is refused before any route."""
    with closing(http.client.HTTPConnection(*registry.server.address, timeout=30)) as connection:
        connection.request("GET", f"/v2{path}{ending}")
        response = connection.getresponse()
        (error,) = json.loads(response.read())["errors"]
        assert (response.status, error["code"]) == (400, "NAME_INVALID")
        assert response.headers["docker-distribution-api-version"] == "registry/2.0"


def test_an_encoded_path_is_decoded_once(client: Client) -> None:
    """`%3A` is a colon, `%2541` is no letter."""
    home = Home(client)
    image = home.push(home.image(), "Tag")
    assert home.get(image.digest.replace(":", "%3A")).content == image.body
    assert home.get("%54ag").content == image.body
    assert home.get("%2554ag").status_code == 404  # a tag cannot be called `%54ag`


@pytest.mark.parametrize("reference", ["sha256:totallywrong", "sha256:" + "A" * 64, "md5:x!", ":", "sha256:", "a:b:c"])
def test_a_malformed_digest_is_400_everywhere(client: Client, reference: str) -> None:
    """Never a server's error, by whichever route."""
    empty = index([])
    for method, kind in (("GET", "manifests"), ("DELETE", "manifests"), ("GET", "blobs"), ("DELETE", "blobs")):
        answer = client.ask(method, f"/v2/a/{kind}/{reference}")
        assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")
        head = client.ask("HEAD", f"/v2/a/{kind}/{reference}")
        assert (head.status_code, head.content) == (400, b"")
    answer = client.ask("PUT", f"/v2/a/manifests/{reference}", empty.body, content_type=empty.type)
    assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")


def test_an_algorithm_nobody_knows_here_is_absent_to_pull_and_refused_to_push(client: Client) -> None:
    """Its grammar is right; there is just nothing under it, and never will be."""
    empty, digest = index([]), "blake3:" + "a" * 64
    assert client.ask("GET", f"/v2/a/manifests/{digest}").status_code == 404
    answer = client.ask("PUT", f"/v2/a/manifests/{digest}", empty.body, content_type=empty.type)
    assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("tag", ["-a", ".a", "a" * 129, "a%20b", "a,b", "%C3%A4"])
def test_a_malformed_tag_is_not_here_and_cannot_be_written(client: Client, tag: str) -> None:
    """404 to read and to delete, as the released conformance suite wants it; 400 to write."""
    empty = index([])
    for method in ("GET", "HEAD", "DELETE"):
        answer = client.ask(method, f"/v2/a/manifests/{tag}")
        assert answer.status_code == 404
        assert method == "HEAD" or code(answer) == "MANIFEST_UNKNOWN"
    answer = client.ask("PUT", f"/v2/a/manifests/{tag}", empty.body, content_type=empty.type)
    assert (answer.status_code, code(answer)) == (400, "TAG_INVALID")


@pytest.mark.parametrize("tag", ["a", "A" * 128, "_", "0", "v1.2-rc_3", "Latest", "latest"])
def test_a_tag_may_be_whatever_the_grammar_allows(client: Client, tag: str) -> None:
    """Case counts."""
    home = Home(client)
    image = home.push(home.image(), tag)
    assert home.get(tag).content == image.body
    assert home.get(tag.swapcase()).status_code == (200 if tag.swapcase() == tag else 404)


@pytest.mark.parametrize("failure", [NoSpace, DiskFailed])
def test_what_may_pass_is_unavailable_and_says_when_to_come_back(
    tmp_path: Path, failure: type[NoSpace | DiskFailed]
) -> None:
    """503 UNAVAILABLE, which clients try again, where v1 says 507 of a full disk; and nothing is half there."""
    disk = ForgetfulDisk(seed=1)
    with pushing(tmp_path / "root", disk=disk) as registry, closing(registry.client()) as client:
        home = Home(client)
        disk.failure, disk.fail_after = failure, 0
        answer = home.put(home.image(), "t")
        assert (answer.status_code, code(answer)) == (503, "UNAVAILABLE")
        assert int(answer.headers["retry-after"]) > 0
        assert home.get("t").status_code == home.get(home.image().digest).status_code == 404
        home.push(home.image(), "t")
