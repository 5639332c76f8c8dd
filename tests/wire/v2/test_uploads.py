"""Every form in which clients push a blob, over HTTP/1.1 and HTTP/2: what is answered, and that the bytes are there."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cas import Upload
from tests.support.engine import noise
from tests.wire.v2.pushing import Client, Pushed, code, held, new_repository, pushing, sha256, sha512

Hash = Callable[[bytes], str]
SAMPLES = [b"", b"x", b"{}", noise(3000), noise(200_000)]
HASHES = [sha256, sha512]
OCTETS = "application/octet-stream"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    with pushing(tmp_path_factory.mktemp("uploads") / "root") as registry:
        yield registry


@pytest.fixture(params=["h1", "h2"])
def client(request: pytest.FixtureRequest, registry: Pushed) -> Iterator[Client]:
    client = registry.client(http2=request.param == "h2")
    yield client
    client.close()


def thirds(data: bytes) -> list[tuple[int, bytes]]:
    """Cut data into three chunks, each with where it starts."""
    step = len(data) // 3 + 1
    return [(start, data[start : start + step]) for start in range(0, len(data), step)]


def span(start: int, data: bytes) -> str:
    return f"{start}-{start + len(data) - 1}"


def assert_pushed(client: Client, repository: str, digest: str, data: bytes, answer: object) -> None:
    """The answer is a 201 that leads to the blob, which is whole."""
    assert answer.status_code == 201, answer.text  # type: ignore[attr-defined]
    headers = answer.headers  # type: ignore[attr-defined]
    assert headers["location"] == f"/v2/{repository}/blobs/{digest}"
    assert headers["docker-content-digest"] == digest
    assert headers["content-length"] == "0"
    got = client.ask("GET", headers["location"])
    assert (got.status_code, got.content) == (200, data)
    assert got.headers["docker-content-digest"] == digest
    head = client.ask("HEAD", headers["location"])
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))


@pytest.mark.parametrize("hash_", HASHES)
@pytest.mark.parametrize("data", SAMPLES, ids=len)
class TestForms:
    """The ways of §5 to push a blob, each with the digest announced by nobody."""

    def test_a_blob_comes_whole_with_the_request_that_names_it(self, client: Client, data: bytes, hash_: Hash) -> None:
        """POST with a digest and the body."""
        repository, digest = new_repository(), hash_(data)
        answer = client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)
        assert_pushed(client, repository, digest, data, answer)

    def test_a_blob_comes_with_the_request_that_closes_its_session(
        self, client: Client, data: bytes, hash_: Hash
    ) -> None:
        """POST, then PUT with everything."""
        repository, digest = new_repository(), hash_(data)
        answer = client.put(client.open(repository), digest, data, Content_Type=OCTETS)
        assert_pushed(client, repository, digest, data, answer)

    def test_a_blob_is_streamed_by_one_patch_of_unknown_length(self, client: Client, data: bytes, hash_: Hash) -> None:
        """POST, PATCH without a length or a range, empty PUT: docker's way."""
        repository, digest = new_repository(), hash_(data)
        place = client.open(repository)
        patched = client.patch(place, iter([data[:100], data[100:]]))
        assert (patched.status_code, held(patched)) == (202, len(data))
        assert_pushed(client, repository, digest, data, client.put(patched.headers["location"], digest))

    @pytest.mark.parametrize("last_by_put", [False, True])
    def test_a_blob_comes_in_chunks(self, client: Client, data: bytes, hash_: Hash, last_by_put: bool) -> None:
        """POST, a PATCH a chunk with its range, the last one perhaps by the PUT."""
        repository, digest = new_repository(), hash_(data)
        place, chunks = client.open(repository), thirds(data)
        last = chunks.pop() if last_by_put and chunks else None
        for start, chunk in chunks:
            answer = client.patch(place, chunk, Content_Range=span(start, chunk))
            assert (answer.status_code, held(answer)) == (202, start + len(chunk))
            assert answer.headers["location"] == place
        if last is None:
            answer = client.put(place, digest)
        else:
            answer = client.put(place, digest, last[1], Content_Range=span(*last))
        assert_pushed(client, repository, digest, data, answer)

    def test_a_blob_with_another_digest_than_named_is_refused(self, client: Client, data: bytes, hash_: Hash) -> None:
        """400 DIGEST_INVALID by every form, and no blob is there under either name."""
        repository, wrong = new_repository(), hash_(data + b"!")
        whole = client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={wrong}", data)
        put = client.put(client.open(repository), wrong, data)
        streamed, chunked, both = (client.open(repository) for _ in range(3))
        assert client.patch(streamed, iter([data])).status_code == 202
        for start, chunk in thirds(data):
            assert client.patch(chunked, chunk, Content_Range=span(start, chunk)).status_code == 202
        assert client.patch(both, data[:1]).status_code == 202
        answers = [whole, put, client.put(streamed, wrong), client.put(chunked, wrong)]
        answers.append(client.put(both, wrong, data[1:], Content_Range=span(len(data[:1]), data[1:])))
        assert [(answer.status_code, code(answer)) for answer in answers] == [(400, "DIGEST_INVALID")] * 5
        assert {client.blob(repository, digest).status_code for digest in (wrong, hash_(data))} == {404}


def test_a_body_is_in_the_way_of_nothing_short(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way its bytes come: what takes them has threads of its own."""
    threads: list[str] = []

    def noted(step: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            threads.append(threading.current_thread().name)
            return step(*arguments)

        return run

    for name in ("draw", "write"):
        monkeypatch.setattr(Upload, name, noted(getattr(Upload, name)))
    data = noise(3 << 20)
    assert client.push(new_repository(), data) == sha256(data)
    assert threads
    assert all("body" in each for each in threads)


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_a_blob_is_pushed_over_tls(tmp_path: Path, tls: ssl.SSLContext, http2: bool) -> None:
    """Each form, with bodies of several windows; places stay relative, so that no scheme can be wrong."""
    data = noise(3_000_000)
    digest = sha256(data)
    with pushing(tmp_path / "root", tls=tls) as registry, closing(registry.client(http2=http2)) as client:
        whole = client.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", data)
        assert_pushed(client, "a", digest, data, whole)
        assert_pushed(client, "b", digest, data, client.put(client.open("b"), digest, data))
        place = client.open("c")
        assert held(client.patch(place, iter([data[:1_000_000], data[1_000_000:]]))) == len(data)
        assert_pushed(client, "c", digest, data, client.put(place, digest))


class TestOpening:
    """POST without a blob."""

    def test_an_opened_session_has_one_relative_place_for_life(self, client: Client) -> None:
        """202 with Location and a name for the upload, no Range yet; the same Location ever after."""
        repository = new_repository()
        answer = client.ask("POST", f"/v2/{repository}/blobs/uploads/", b"", Content_Type="application/json")
        place = answer.headers["location"]
        assert (answer.status_code, answer.headers["content-length"]) == (202, "0")
        assert re.fullmatch(rf"/v2/{repository}/blobs/uploads/[A-Za-z0-9_-]+", place)
        assert answer.headers["docker-upload-uuid"] == place.rpartition("/")[2]
        assert "range" not in answer.headers
        answers = [client.ask("GET", place), client.patch(place, b"abc"), client.ask("GET", place)]
        assert {answer.headers["location"] for answer in answers} == {place}
        assert {answer.headers["docker-upload-uuid"] for answer in answers} == {place.rpartition("/")[2]}

    def test_the_slash_at_the_end_may_be_missing(self, client: Client) -> None:
        """No redirect, which would lose bodies and credentials."""
        repository = new_repository()
        assert client.ask("POST", f"/v2/{repository}/blobs/uploads").status_code == 202
        answer = client.ask("POST", f"/v2/{repository}/blobs/uploads?digest={sha256(b'x')}", b"x")
        assert_pushed(client, repository, sha256(b"x"), b"x", answer)

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_the_algorithm_may_be_announced(self, client: Client, algorithm: str) -> None:
        """And the blob may be closed with either nevertheless."""
        for hash_ in HASHES:
            repository, data = new_repository(), noise(100_000, 7)
            place = client.open(repository, f"?digest-algorithm={algorithm}")
            assert client.patch(place, data).status_code == 202
            assert_pushed(client, repository, hash_(data), data, client.put(place, hash_(data)))

    def test_an_unknown_algorithm_is_refused_at_once(self, client: Client) -> None:
        """400, whether it is announced, or comes with a blob or a mount."""
        place, foreign = f"/v2/{new_repository()}/blobs/uploads/", "blake3:" + "0" * 64
        for query in ("digest-algorithm=md5", f"digest={foreign}", f"mount={foreign}", f"mount={foreign}&from=a"):
            answer = client.ask("POST", f"{place}?{query}")
            assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")
        answer = client.put(client.open("a"), foreign, b"x")
        assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")

    def test_a_name_without_a_namespace_is_shown_as_the_client_wrote_it(self, client: Client) -> None:
        """`foo` and `library/foo` are one repository; a session goes on, and a blob is there, under both."""
        data = noise(500, 3)
        place = client.open("foo")
        assert place.startswith("/v2/foo/blobs/uploads/")
        other = place.replace("/v2/foo/", "/v2/library/foo/")
        assert client.patch(other, data).headers["location"] == other
        assert client.put(place, sha256(data)).headers["location"] == f"/v2/foo/blobs/{sha256(data)}"
        assert client.blob("library/foo", sha256(data)).content == data

    def test_a_repository_may_be_called_like_a_route(self, client: Client) -> None:
        """Paths are read from their right end."""
        for repository in ("x/blobs/uploads", "a/tags/list", "blobs/uploads/blobs/uploads", "uploads"):
            data = repository.encode()
            assert client.push(repository, data) == sha256(data)
            assert client.blob(repository, sha256(data)).content == data


class TestState:
    """A session between its requests."""

    def test_a_session_without_a_byte_says_so(self, client: Client) -> None:
        """`0--1`: one more than the end is 0, where a client goes on."""
        answer = client.ask("GET", client.open(new_repository()))
        assert (answer.status_code, answer.headers["range"]) == (204, "0--1")
        assert "content-length" not in answer.headers

    def test_a_chunk_out_of_order_changes_nothing(self, client: Client) -> None:
        """416 with Location and the true Range, on PATCH and PUT, early, late and repeated; the session goes on."""
        repository, data = new_repository(), noise(9000)
        place, digest = client.open(repository), sha256(data)
        for start, chunk in thirds(data):
            wrong = [begin for begin in (0, start - 1, start + 1, 6000, 10**15) if begin != start and begin >= 0]
            for begin in wrong:
                by_patch = client.patch(place, chunk, Content_Range=span(begin, chunk))
                by_put = client.put(place, digest, chunk, Content_Range=span(begin, chunk))
                for answer in (by_patch, by_put):
                    assert (answer.status_code, code(answer)) == (416, "RANGE_INVALID")
                    assert (answer.headers["location"], held(answer)) == (place, start)
            assert client.held(place) == start
            assert client.patch(place, chunk, Content_Range=span(start, chunk)).status_code == 202
        assert client.held(f"{place}?digest={digest}") == len(data)
        assert_pushed(client, repository, digest, data, client.put(place, digest))

    @pytest.mark.parametrize("form", ["{}", "bytes {}", "bytes={}", "{}/6", "bytes {}/*"])
    def test_old_spellings_of_a_range_are_understood(self, client: Client, form: str) -> None:
        """A unit in front and a total behind, as downloads have them."""
        place = client.open(new_repository())
        for start, chunk in ((0, b"abc"), (3, b"def")):
            answer = client.patch(place, chunk, Content_Range=form.format(span(start, chunk)))
            assert (answer.status_code, held(answer)) == (202, start + 3)
        assert client.put(place, sha256(b"abcdef")).status_code == 201

    @pytest.mark.parametrize(
        "text", ["x", "0", "-", "1-", "-3", "3-1", "0--2", "a-b", "0-2-4", "chunks 0-2", "\u0663-\u0664"]
    )
    def test_a_range_that_is_none_is_refused(self, client: Client, text: str) -> None:
        """400, nothing is stored, and the session goes on."""
        place = client.open(new_repository())
        for method, target in (("PATCH", place), ("PUT", f"{place}?digest={sha256(b'abc')}")):
            answer = client.speech.request(method, target, content=b"abc", headers={b"content-range": text.encode()})
            assert (answer.status_code, code(answer)) == (400, "BLOB_UPLOAD_INVALID")
        assert client.held(place) == 0

    def test_a_body_that_is_not_as_long_as_its_range_is_refused(self, client: Client) -> None:
        """400 SIZE_INVALID, whether the length was announced or turns out; nothing is stored."""
        place = client.open(new_repository())
        for text in ("0-1", "0-3"):
            for body in (b"abc", iter([b"a", b"bc"])):
                by_patch = client.patch(place, body, Content_Range=text)
                assert (by_patch.status_code, code(by_patch)) == (400, "SIZE_INVALID")
            by_put = client.put(place, sha256(b"abc"), b"abc", Content_Range=text)
            assert (by_put.status_code, code(by_put)) == (400, "SIZE_INVALID")
        assert client.held(place) == 0
        assert client.patch(place, b"abc", Content_Range="0-2").status_code == 202

    def test_a_chunk_of_nothing_is_welcome(self, client: Client) -> None:
        """At the right place, with and without a range."""
        place = client.open(new_repository())
        assert client.patch(place, b"", Content_Range="0--1").headers["range"] == "0--1"
        assert client.patch(place, b"abc").headers["range"] == "0-2"
        assert client.patch(place, b"").headers["range"] == "0-2"
        assert client.patch(place, b"", Content_Range="3-2").headers["range"] == "0-2"
        assert client.patch(place, b"", Content_Range="2-1").status_code == 416
        assert client.put(place, sha256(b"abc")).status_code == 201

    def test_a_cancelled_session_is_gone(self, client: Client) -> None:
        """204 without a body, with bytes and without; then 404 for everything."""
        for data in (b"", b"abc", noise(200_000)):
            place = client.open(new_repository())
            assert client.patch(place, data).status_code == 202
            answer = client.ask("DELETE", place)
            assert (answer.status_code, answer.content) == (204, b"")
            assert "content-length" not in answer.headers
            assert_gone(client, place, data)

    def test_an_unused_session_can_be_cancelled(self, client: Client) -> None:
        """As some clients do whenever a mount came to nothing."""
        place = client.open(new_repository())
        assert client.ask("DELETE", place).status_code == 204
        assert_gone(client, place, b"abc")

    def test_a_closed_session_is_gone_but_for_its_last_request(self, client: Client) -> None:
        """A client that did not see the answer asks again and gets the same one; for anything else there is none."""
        for data in (b"abc", noise(200_000, 5)):
            repository, digest = new_repository(), sha256(data)
            place = client.open(repository)
            assert client.patch(place, data).status_code == 202
            for _ in range(3):
                assert_pushed(client, repository, digest, data, client.put(place, digest))
            assert client.put(place, client.push(repository, b"other")).status_code == 404
            for method in ("GET", "PATCH", "DELETE"):
                answer = client.ask(method, place)
                assert (answer.status_code, code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")

    def test_a_last_request_is_not_repeated_for_a_blob_that_was_deleted_since(self, client: Client) -> None:
        """The answer would say that something is there which is not."""
        repository, data = new_repository(), noise(2000, 6)
        place = client.open(repository)
        client.patch(place, data)
        assert client.put(place, sha256(data)).status_code == 201
        assert client.blob(repository, sha256(data), "DELETE").status_code == 202
        answer = client.put(place, sha256(data))
        assert (answer.status_code, code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")

    def test_a_wrong_digest_ends_the_session(self, client: Client) -> None:
        """What came is not what was meant; it takes no room for days."""
        place = client.open(new_repository())
        client.patch(place, noise(200_000, 8))
        assert client.put(place, sha256(b"other")).status_code == 400
        assert_gone(client, place, b"abc")

    def test_a_blob_that_is_here_is_pushed_again_like_any(self, client: Client) -> None:
        """201 by every form, in the same repository and in another."""
        data, repository = noise(150_000, 9), new_repository()
        digest = client.push(repository, data)
        for target in (repository, new_repository()):
            client.push(target, data)
            answer = client.ask("POST", f"/v2/{target}/blobs/uploads/?digest={digest}", data)
            assert_pushed(client, target, digest, data, answer)
            place = client.open(target)
            client.patch(place, data)
            assert_pushed(client, target, digest, data, client.put(place, digest))

    def test_both_names_of_the_same_bytes_live_and_die_alone(self, client: Client) -> None:
        """Each is answered with its own digest; a delete of one leaves the other."""
        repository, data = new_repository(), noise(120_000, 10)
        for digest in (sha256(data), sha512(data)):
            assert client.put(client.open(repository), digest, data).status_code == 201
        assert client.blob(repository, sha256(data), "DELETE").status_code == 202
        assert client.blob(repository, sha256(data)).status_code == 404
        answer = client.blob(repository, sha512(data))
        assert (answer.content, answer.headers["docker-content-digest"]) == (data, sha512(data))

    @pytest.mark.parametrize("text", ["", "abc", "sha256:", "sha256:abc", "sha256:" + "A" * 64, "sha256:" + "0" * 65])
    def test_a_digest_that_is_none_is_refused(self, client: Client, text: str) -> None:
        """400 DIGEST_INVALID by every form, missing ones too, and the session goes on."""
        place = client.open("a")
        asked = [
            client.put(place, text, b"x"),
            client.ask("PUT", place, b"x"),
            client.ask("POST", f"/v2/a/blobs/uploads/?digest={text}", b"x"),
            client.ask("POST", f"/v2/a/blobs/uploads/?mount={text}"),
        ]
        assert [(answer.status_code, code(answer)) for answer in asked] == [(400, "DIGEST_INVALID")] * 4
        assert client.held(place) == 0


def assert_gone(client: Client, place: str, data: bytes) -> None:
    """Every method answers that there is no such session."""
    answers = [client.ask(method, place) for method in ("GET", "PATCH", "DELETE")]
    answers += [client.patch(place, data, Content_Range=span(0, data)), client.put(place, sha256(data), data)]
    assert [(answer.status_code, code(answer)) for answer in answers] == [(404, "BLOB_UPLOAD_UNKNOWN")] * 5
    head = client.ask("HEAD", place)
    assert (head.status_code, head.content) == (404, b"")
