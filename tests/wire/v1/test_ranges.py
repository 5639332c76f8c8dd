"""Ranges of layers, as the table says; and the resume of old engines, off by one."""

from __future__ import annotations

import pytest

from tests.v1client import Answer
from tests.wire.v1.talk import Registry

LAYER = bytes(range(256)) * 400
SIZE = len(LAYER)


@pytest.fixture(scope="module")
def path(registry: Registry) -> str:
    return f"/v1/images/{registry.image(LAYER)}/layer"


def ranged(registry: Registry, path: str, text: str) -> Answer:
    return registry.ask("GET", path, headers={"Range": text})


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=1-1", 1, 1),
        ("bytes=5-", 5, SIZE - 1),
        (f"bytes=5-{SIZE}", 5, SIZE - 1),
        (f"bytes=5-{SIZE - 1}", 5, SIZE - 1),
        (f"bytes={SIZE - 1}-{SIZE}", SIZE - 1, SIZE - 1),
        ("bytes=100-99999999999999999999", 100, SIZE - 1),
        ("bytes=-1", SIZE - 1, SIZE - 1),
        ("bytes=-99999999999", 0, SIZE - 1),
    ],
)
def test_a_satisfiable_range_is_206_clamped_and_with_its_unit(
    registry: Registry, path: str, text: str, first: int, last: int
) -> None:
    """The reference forgot the unit, and announced one byte too many."""
    answer = ranged(registry, path, text)
    assert answer.status == 206
    assert answer.body == LAYER[first : last + 1]
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["Content-Length"] == str(last - first + 1)


@pytest.mark.parametrize(
    "text", [f"bytes={SIZE}-{SIZE}", f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=9-5", "bytes=-0"]
)
def test_an_unsatisfiable_range_is_an_empty_416(registry: Registry, path: str, text: str) -> None:
    """`bytes=SIZE-SIZE` is how an engine finds out that it has everything: only an empty 416 tells it so."""
    answer = ranged(registry, path, text)
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["Content-Length"] == "0"
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("text", ["bytes=0-1,5-9", "bytes=", "bytes=x-y", "lines=1-2", "bytes 0-1", "", "bytes=--1"])
def test_malformed_several_and_other_units_get_everything(registry: Registry, path: str, text: str) -> None:
    """As a client without ranges would."""
    answer = ranged(registry, path, text)
    assert (answer.status, answer.body) == (200, LAYER)
    assert answer.headers["Content-Range"] is None


def test_an_engine_resumes_a_broken_download(registry: Registry, path: str) -> None:
    """From what it has to one past the end, until it is told that nothing is left."""
    have = LAYER[:12_345]
    answer = ranged(registry, path, f"bytes={len(have)}-{SIZE}")
    assert (answer.status, have + answer.body) == (206, LAYER)
    assert ranged(registry, path, f"bytes={SIZE}-{SIZE}").status == 416


def test_the_empty_archive_has_ranges_too(registry: Registry) -> None:
    """A layer of no bytes is 32 bytes to a reader."""
    empty = f"/v1/images/{registry.image(b'')}/layer"
    assert ranged(registry, empty, "bytes=30-32").body == registry.ask("GET", empty).body[30:]
    assert ranged(registry, empty, "bytes=32-32").status == 416


def test_head_announces_a_range_without_sending_it(registry: Registry, path: str) -> None:
    """Engines from 0.12 to 1.1 ask so before each layer."""
    answer = registry.ask("HEAD", path)
    assert (answer.status, answer.headers["Accept-Ranges"], answer.body) == (200, "bytes", b"")
    answer = registry.ask("HEAD", path, headers={"Range": "bytes=0-9"})
    assert (answer.status, answer.headers["Content-Length"]) == (206, "10")
