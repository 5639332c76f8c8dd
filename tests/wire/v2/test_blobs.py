"""Blobs over real sockets: whole, in parts, and gone."""

from __future__ import annotations

import email.parser
import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.support.engine import prose
from tests.wire.v2.content import Home
from tests.wire.v2.pushing import Pushed, code, new_repository, pushing, sha256, sha512

SIZE = 3_000
DATA = bytes(hashlib.shake_256(b"blob").digest(SIZE))
LARGE = bytes(hashlib.shake_256(b"large").digest(700_000))  # past what lies in the index
ABSENT = sha256(b"nobody pushed this")


@pytest.fixture(scope="module")
def home(registry: Pushed) -> Iterator[Home]:
    """A repository with a small and a large blob."""
    with closing(registry.client()) as client:
        home = Home(client)
        client.push(home.name, DATA)
        client.push(home.name, LARGE)
        yield home


def ask(home: Home, data: bytes, method: str = "GET", **headers: str) -> httpx2.Response:
    return home.client.ask(method, f"/v2/{home.name}/blobs/{sha256(data)}", None, **headers)


@pytest.mark.parametrize("data", [DATA, LARGE])
def test_a_blob_comes_back_whole(home: Home, data: bytes) -> None:
    """HEAD is GET without the body."""
    got, head = ask(home, data), ask(home, data, "HEAD")
    assert (got.status_code, got.content, head.content) == (200, data, b"")
    assert dict(got.headers) | {"date": ""} == dict(head.headers) | {"date": ""}
    expected = {
        "content-type": "application/octet-stream",
        "content-length": str(len(data)),
        "docker-content-digest": sha256(data),
        "docker-distribution-api-version": "registry/2.0",
        "accept-ranges": "bytes",
        "etag": f'"{sha256(data)}"',
        "cache-control": "max-age=31536000, immutable",
    }
    assert expected.items() <= dict(got.headers).items()
    assert not {"content-encoding", "transfer-encoding"} & set(got.headers)


@pytest.mark.parametrize("data", [b"", b"x", b"{}"])
def test_the_smallest_blobs_come_back(home: Home, data: bytes) -> None:
    """Real clients push all of these."""
    home.client.push(home.name, data)
    assert (ask(home, data).content, ask(home, data).headers["content-length"]) == (data, str(len(data)))


def test_no_answer_is_ever_encoded(home: Home) -> None:
    """Whatever a client would like: lengths and ranges are those of the stored bytes."""
    home.client.push(home.name, b"a" * 100_000)
    answer = ask(home, b"a" * 100_000, accept_encoding="zstd, gzip, deflate")
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-length"] == "100000"


def test_content_pushed_under_two_algorithms_has_two_names(home: Home) -> None:
    """Each answers with its own digest, and goes by itself."""
    data = b"content with two names"
    digests = [sha256(data), sha512(data)]
    for digest in digests:
        assert home.client.put(home.client.open(home.name), digest, data).status_code == 201
    for digest in digests:
        got = home.client.blob(home.name, digest)
        assert (got.content, got.headers["docker-content-digest"]) == (data, digest)
    assert home.client.blob(home.name, digests[0], "DELETE").status_code == 202
    assert [home.client.blob(home.name, digest).status_code for digest in digests] == [404, 200]


@pytest.mark.parametrize("data", [DATA, LARGE])
@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, None),
        ("bytes=-500", -500, None),
        ("bytes=2000-5000", 2000, 5001),
        ("bytes=0-0", 0, 1),
        ("bytes=-999999999", 0, None),
        ("bytes=0-,999999999-", 0, None),
    ],
)
def test_one_range_is_206_with_just_that(home: Home, data: bytes, wanted: str, start: int, stop: int | None) -> None:
    """A resumed download checks that it begins where it asked and runs to the end of the whole."""
    first, last, _ = slice(start, stop).indices(len(data))
    answer = ask(home, data, range=wanted)
    assert (answer.status_code, answer.content) == (206, data[first:last])
    assert answer.headers["content-range"] == f"bytes {first}-{last - 1}/{len(data)}"
    assert answer.headers["content-length"] == str(last - first)
    head = ask(home, data, "HEAD", range=wanted)
    assert (head.status_code, head.headers["content-range"]) == (206, answer.headers["content-range"])


@pytest.mark.parametrize("wanted", ["bytes=3000-", "bytes=5000-10000", "bytes=500-0", "bytes=-0", "bytes=9-8,4000-"])
def test_a_range_without_a_byte_is_416_with_the_size(home: Home, wanted: str) -> None:
    """So that the client learns what there is."""
    for method in ("GET", "HEAD"):
        answer = ask(home, DATA, method, range=wanted)
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")
    assert code(ask(home, DATA, range=wanted)) == "RANGE_INVALID"


def test_an_empty_blob_has_no_range(home: Home) -> None:
    """Any would be 416."""
    home.client.push(home.name, b"")
    for wanted in ("bytes=0-", "bytes=0-0", "bytes=-1"):
        assert ask(home, b"", range=wanted).status_code == 416


@pytest.mark.parametrize("wanted", ["bytes=a-b", "items=0-4", "0-4", "bytes=", "bytes=5", "bytes=0-2999,0-2999"])
def test_what_is_no_sensible_range_gets_the_whole(home: Home, wanted: str) -> None:
    """200; ranges that together are longer than the whole included."""
    answer = ask(home, DATA, range=wanted)
    assert (answer.status_code, answer.content) == (200, DATA)


def parts_of(answer: httpx2.Response) -> list[tuple[str, bytes]]:
    """Take a multipart answer apart with the standard library."""
    parser = email.parser.BytesParser()
    message = parser.parsebytes(f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode() + answer.content)
    assert message.get_content_type() == "multipart/byteranges"
    parts = [part for part in message.walk() if not part.is_multipart()]
    return [(str(part["content-range"]), bytes(part.get_payload(decode=True))) for part in parts]


@pytest.mark.parametrize("data", [DATA, LARGE])
def test_several_ranges_are_one_multipart_answer(home: Home, data: bytes) -> None:
    """In the order in which they were asked for; those without a byte are left out."""
    answer = ask(home, data, range="bytes=100-199, -50, 9999999-, 0-9")
    assert answer.status_code == 206
    assert answer.headers["content-length"] == str(len(answer.content))
    size = len(data)
    assert parts_of(answer) == [
        (f"bytes 100-199/{size}", data[100:200]),
        (f"bytes {size - 50}-{size - 1}/{size}", data[-50:]),
        (f"bytes 0-9/{size}", data[:10]),
    ]
    head = ask(home, data, "HEAD", range="bytes=100-199, -50, 9999999-, 0-9")
    assert dict(head.headers) | {"date": ""} == dict(answer.headers) | {"date": ""}


def test_hundreds_of_ranges_in_one_header_are_answered(home: Home) -> None:
    """32 KiB of them, as pullers of single files send."""
    wanted = [(start, start + 9) for start in range(0, len(LARGE), 300)][:2_300]
    header = "bytes=" + ",".join(f"{first}-{last}" for first, last in wanted)
    assert 30_000 < len(header) < 40_000
    found = parts_of(ask(home, LARGE, range=header))
    assert [data for _, data in found] == [LARGE[first : last + 1] for first, last in wanted]


def test_more_ranges_of_what_is_kept_compressed_than_are_worth_it_get_the_whole(home: Home) -> None:
    """Each of them costs a look into the index and a chunk decoded, so that thousands would cost seconds."""
    data = prose(700_000)
    home.client.push(home.name, data)
    assert parts_of(ask(home, data, range=ranges_of(data, 32)))[-1][1] == b"i"
    for header in (ranges_of(data, 33), "bytes=" + ",".join(["9-9"] * 8_000)):
        answer = ask(home, data, range=header)
        assert (answer.status_code, answer.content == data) == (200, True)


def ranges_of(data: bytes, count: int) -> str:
    """Ask for so many single bytes, each in another place."""
    step = len(data) // count
    return "bytes=" + ",".join(f"{at}-{at}" for at in range(9, 9 + count * step, step)[: count - 1]) + ",9-9"


def test_an_answer_in_parts_is_never_longer_than_the_whole(home: Home) -> None:
    """Each part has a head of its own, and thousands of single bytes would be one of heads."""
    for count, status in ((2_000, 206), (8_000, 200)):
        answer = ask(home, LARGE, range="bytes=" + ",".join(["9-9"] * count))
        assert (answer.status_code, len(answer.content) <= len(LARGE)) == (status, True)


def test_a_part_of_something_else_is_not_continued(home: Home) -> None:
    """`If-Range` with this digest gives the part, with another one or a date the whole."""
    same = ask(home, DATA, range="bytes=5-", if_range=f'"{sha256(DATA)}"')
    assert (same.status_code, same.content) == (206, DATA[5:])
    for other in (f'"{ABSENT}"', "Wed, 21 Oct 2015 07:28:00 GMT", f'W/"{sha256(DATA)}"'):
        assert ask(home, DATA, range="bytes=5-", if_range=other).status_code == 200


def test_a_client_that_has_it_gets_304(home: Home) -> None:
    """Before any range is looked at."""
    for method in ("GET", "HEAD"):
        answer = ask(home, DATA, method, if_none_match=f'"{sha256(DATA)}"', range="bytes=99999-")
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", f'"{sha256(DATA)}"')


def test_an_absent_blob_is_404(home: Home) -> None:
    """Also where there is no such repository, in another repository, and for algorithms that nobody knows here."""
    cases = [(home.name, ABSENT), (home.name, "blake3:" + "b" * 64), (home.name, sha512(b"")), ("nobody/here", ABSENT)]
    for name, digest in [*cases, (new_repository(), sha256(DATA))]:
        for method in ("GET", "DELETE"):
            answer = home.client.blob(name, digest, method)
            assert (answer.status_code, code(answer)) == (404, "BLOB_UNKNOWN")
        head = home.client.blob(name, digest, "HEAD")
        assert (head.status_code, head.content) == (404, b"")


def test_a_deleted_blob_is_gone_here_and_nowhere_else(home: Home) -> None:
    """202, and 404 at once; pushed again it is there again."""
    other, data = new_repository(), b"in two repositories"
    for name in (home.name, other):
        home.client.push(name, data)
    digest = sha256(data)
    assert home.client.blob(home.name, digest, "DELETE").status_code == 202
    assert home.client.blob(home.name, digest, "HEAD").status_code == 404
    assert home.client.blob(home.name, digest, "DELETE").status_code == 404
    assert home.client.blob(other, digest).content == data
    home.client.push(home.name, data)
    assert home.client.blob(home.name, digest).content == data


def test_a_manifest_outlives_a_blob_that_was_deleted(home: Home) -> None:
    """Whoever may delete may make a hole; the manifest cannot be pushed anew until it is filled."""
    home = Home(home.client, config=b"to be deleted")
    image = home.push(home.image(), "t")
    assert home.client.blob(home.name, sha256(home.config), "DELETE").status_code == 202
    assert home.get("t").content == image.body
    assert code(home.put(image, "t")) == "MANIFEST_BLOB_UNKNOWN"
    home.client.push(home.name, home.config)
    home.push(image, "t")


def test_downloads_that_are_cut_off_leave_nothing_behind(tmp_path: Path) -> None:
    """Parallel fetchers open many and drop each after its share."""
    data = os.urandom(8 << 20)
    with pushing(tmp_path / "root") as registry, closing(registry.client()) as client:
        digest = client.push("cut/off", data)
        request = f"GET /v2/cut/off/blobs/{digest} HTTP/1.1\r\nHost: a\r\nRange: bytes=1-\r\n\r\n".encode()
        for _ in range(20):
            with registry.server.connect() as sock:
                sock.sendall(request)
                assert sock.recv(1000).startswith(b"HTTP/1.1 206")
        assert client.blob("cut/off", digest).content == data
        client.close()
        registry.server.stop()
        packs = registry.store._parts.files._open  # noqa: SLF001 - what stays open is nobody's business otherwise
        assert [pack.users for pack in packs.values()] == [0]
