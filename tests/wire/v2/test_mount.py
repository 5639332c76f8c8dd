"""Mounting: a blob that the caller may pull somewhere is in another repository without being sent; nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from api.access.principal import Action
from api.content.repository import Repository
from api.v2 import links, mount
from cas import Digest
from tests.wire.v2.members import ANN, BOB, Members, basic, members
from tests.wire.v2.pushing import Client, Pushed, code, new_data, new_repository, pushing, sha256, sha512


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    with pushing(tmp_path_factory.mktemp("mounts") / "root") as registry:
        yield registry


@pytest.fixture(params=["h1", "h2"])
def client(request: pytest.FixtureRequest, registry: Pushed) -> Iterator[Client]:
    with closing(registry.client(http2=request.param == "h2")) as client:
        yield client


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Members]:
    with members(tmp_path / "root") as registry:
        yield registry


def ask(client: Client, target: str, digest: str, source: str | None = None) -> httpx2.Response:
    query = f"?mount={digest}" + (f"&from={source}" if source is not None else "")
    return client.ask("POST", f"/v2/{target}/blobs/uploads/{query}")


def assert_mounted(client: Client, target: str, digest: str, data: bytes, answer: httpx2.Response) -> None:
    """The answer leads to the blob, which is there at once."""
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v2/{target}/blobs/{digest}"
    assert answer.headers["docker-content-digest"] == digest
    head = client.ask("HEAD", answer.headers["location"])
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))
    assert client.blob(target, digest).content == data


def assert_opened(client: Client, target: str, data: bytes, answer: httpx2.Response) -> None:
    """Nothing was mounted; the session that was opened instead takes the blob."""
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"].startswith(f"/v2/{target}/blobs/uploads/")
    assert client.blob(target, sha256(data)).status_code == 404
    assert client.put(answer.headers["location"], sha256(data), data).status_code == 201


class TestOpenMode:
    """Everybody may pull everything."""

    @pytest.mark.parametrize("size", [0, 2, 3000, 300_000])
    @pytest.mark.parametrize("named", [True, False])
    def test_a_blob_of_another_repository_is_mounted(self, client: Client, size: int, named: bool) -> None:
        """201 with the source named and without."""
        source, target, data = new_repository(), new_repository(), new_data(size)
        client.push(source, data)
        answer = ask(client, target, sha256(data), source if named else None)
        assert_mounted(client, target, sha256(data), data, answer)

    def test_a_source_may_be_spelled_as_clients_spell_it(self, client: Client, registry: Pushed) -> None:
        """With its slashes as they are or escaped, beside another parameter, and with or without `library`."""
        source, data = new_repository(), new_data(100)
        client.push(source, data)
        client.push("mounts-short", data)
        for text in (source, source.replace("/", "%2F"), f"{source}&origin=elsewhere", "mounts-short"):
            target = new_repository()
            assert_mounted(client, target, sha256(data), data, ask(client, target, sha256(data), text))
        target = new_repository()
        assert_mounted(client, target, sha256(data), data, ask(client, target, sha256(data), "library/mounts-short"))

    def test_a_blob_is_mounted_under_the_name_it_was_pushed_by(self, client: Client) -> None:
        """The same bytes under another algorithm are another blob."""
        source, target, data = new_repository(), new_repository(), new_data(5000)
        assert client.put(client.open(source), sha512(data), data).status_code == 201
        assert_mounted(client, target, sha512(data), data, ask(client, target, sha512(data)))
        assert_opened(client, target, data, ask(client, target, sha256(data)))

    def test_what_is_not_there_is_uploaded_instead(self, client: Client) -> None:
        """202 with a session: an unknown blob, a source without it, an unknown source, one that can be none."""
        there = new_repository()
        client.push(there, b"something else")
        for source in (None, there, new_repository(), "Not/A/Repository", "a//b", "../a", "%00"):
            data, target = new_data(50), new_repository()
            assert_opened(client, target, data, ask(client, target, sha256(data), source))

    def test_a_named_source_is_the_only_one_looked_into(self, client: Client) -> None:
        """Although another repository has the blob."""
        source, other, data = new_repository(), new_repository(), new_data(100)
        client.push(source, data)
        client.push(other, b"other")
        target = new_repository()
        assert_opened(client, target, data, ask(client, target, sha256(data), other))

    def test_a_blob_that_is_there_already_is_mounted_again(self, client: Client, registry: Pushed) -> None:
        """201, and nothing is written."""
        repository, data = new_repository(), new_data(100)
        client.push(repository, data)
        before = registry.store.stats()
        for source in (None, repository, new_repository()):
            assert_mounted(client, repository, sha256(data), data, ask(client, repository, sha256(data), source))
        assert registry.store.stats() == before

    def test_a_mounted_blob_outlives_its_source(self, client: Client) -> None:
        """It is held by its new repository from that moment."""
        source, target, data = new_repository(), new_repository(), new_data(200_000)
        client.push(source, data)
        answer = ask(client, target, sha256(data), source)
        assert client.blob(source, sha256(data), "DELETE").status_code == 202
        assert client.blob(source, sha256(data)).status_code == 404
        assert_mounted(client, target, sha256(data), data, answer)

    def test_a_deleted_blob_is_not_mounted(self, client: Client) -> None:
        """Though its bytes may still lie there."""
        source, target, data = new_repository(), new_repository(), new_data(200_000)
        client.push(source, data)
        client.blob(source, sha256(data), "DELETE")
        assert_opened(client, target, data, ask(client, target, sha256(data), source))
        assert_mounted(client, source, sha256(data), data, ask(client, source, sha256(data)))

    @pytest.mark.parametrize("text", ["", "x", "sha256:x", "sha256:" + "A" * 64, "sha1:" + "0" * 40])
    def test_a_digest_that_is_none_is_refused(self, client: Client, text: str) -> None:
        """400, with and without a source."""
        for source in (None, "a"):
            answer = ask(client, "b", text, source)
            assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")

    def test_a_mount_makes_the_repository(self, client: Client, registry: Pushed) -> None:
        """In the same change as the link; one that came to nothing makes none."""
        source, target, data = new_repository(), new_repository(), new_data(50)
        client.push(source, data)
        assert ask(client, target, sha256(b"unknown")).status_code == 202
        assert not registry.store.scan("repo", target)
        assert ask(client, target, sha256(data)).status_code == 201
        assert [name.path for name, _ in registry.store.scan("repo", target)] == [target]
        link = registry.store.read(lambda reads: links.find(reads, Repository.of(target), Digest.parse(sha256(data))))
        assert link is not None
        assert link.size == len(data)


class TestRights:
    """Pull on the source, push on the target; of anything else not even the existence is told."""

    def mount(self, registry: Members, who: str | None, target: str, digest: str, source: str | None) -> int:
        query = {"mount": digest} | ({"from": source} if source is not None else {})
        return registry.ask("POST", f"/v2/{target}/blobs/uploads/", who, params=query).status_code

    @pytest.mark.parametrize("named", [True, False])
    def test_a_private_blob_is_as_if_it_were_not_there(self, fresh: Members, named: bool) -> None:
        """202, as for an unknown one; and the blob stays out of reach."""
        _, digest = fresh.push("ann/private", ANN)
        unknown = sha256(b"unknown")
        for one, source in ((digest, "ann/private"), (unknown, "ann/private"), (digest, "ann/none")):
            assert self.mount(fresh, basic(BOB), "bob/mine", one, source if named else None) == 202
        assert fresh.ask("GET", f"/v2/bob/mine/blobs/{digest}", basic(BOB)).status_code == 404

    @pytest.mark.parametrize("named", [True, False])
    def test_what_may_be_pulled_may_be_mounted(self, fresh: Members, named: bool) -> None:
        """By a grant, or because everybody may; until the grant is taken back."""
        for name in ("ann/granted", "ann/public"):
            _, digest = fresh.push(name, ANN)
            source = name if named else None
            assert self.mount(fresh, basic(BOB), "bob/mine", digest, source) == 202
            if name == "ann/granted":
                fresh.grant("bob", name, Action.PULL)
            else:
                fresh.publish(name)
            assert self.mount(fresh, basic(BOB), "bob/mine", digest, source) == 201
        _, digest = fresh.push("ann/granted", ANN)
        fresh.grant("bob", "ann/granted")
        assert self.mount(fresh, basic(BOB), "bob/other", digest, "ann/granted") == 202

    def test_a_token_mounts_what_it_was_made_for(self, fresh: Members) -> None:
        """Its owner may pull the source: a client whose token does not say so is sent for one that does.

        A client that names no source gets a session; nobody could tell it what to ask for.
        """
        _, digest = fresh.push("ann/source", ANN)
        push = "repository:ann/target:pull,push"
        little = fresh.token(push, who=ANN)
        asked = {"mount": digest, "from": "ann/source"}
        answer = fresh.ask("POST", "/v2/ann/target/blobs/uploads/", little, params=asked)
        assert answer.status_code == 401
        assert (
            'scope="repository:ann/target:pull,push repository:ann/source:pull"' in answer.headers["www-authenticate"]
        )
        assert self.mount(fresh, little, "ann/target", digest, "bob/source") == 202
        assert self.mount(fresh, little, "ann/target", digest, None) == 202
        both = fresh.token(push, "repository:ann/source:pull", who=ANN)
        assert self.mount(fresh, both, "ann/target", digest, "ann/source") == 201

    def test_a_mount_needs_the_right_to_push(self, fresh: Members) -> None:
        """To pull from both is not enough."""
        _, digest = fresh.push("ann/source", ANN)
        fresh.publish("ann/source")
        fresh.push("ann/target", ANN)
        fresh.publish("ann/target")
        assert self.mount(fresh, basic(BOB), "ann/target", digest, "ann/source") == 403
        assert self.mount(fresh, None, "ann/target", digest, "ann/source") == 401


def test_a_blob_that_is_everywhere_is_looked_for_in_bounds(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound a client is told to upload; the repository it pushes to always counts."""
    data = new_data(64)
    repositories = [new_repository() for _ in range(4)]
    for repository in repositories:
        client.push(repository, data)
    monkeypatch.setattr(mount, "MOST_HOLDERS", 0)
    assert ask(client, new_repository(), sha256(data)).status_code == 202
    assert ask(client, repositories[-1], sha256(data)).status_code == 201
    monkeypatch.setattr(mount, "MOST_HOLDERS", 1)
    assert ask(client, new_repository(), sha256(data)).status_code == 201
