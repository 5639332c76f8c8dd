"""File listings have the rows old servers gave."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import Any

import pytest

from api.v1.listing import listing
from api.v1.unpack import TooMuch, Unreadable


def layer(*members: tuple[str, bytes, int]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, mode in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, mode
            info.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"abc"))
    return out.getvalue()


def rows(data: bytes) -> Any:
    return json.loads(listing([data], limit_bytes=1 << 20, limit_listing_bytes=1 << 20))


def test_the_rows_of_the_reference() -> None:
    """A file, a whiteout and a directory, as they were seen on the wire."""
    data = layer(
        ("./etc/hi", tarfile.REGTYPE, 0o644),
        ("./.wh.gone", b"0", 0o644),
        ("./dir/", tarfile.DIRTYPE, 0o755),
    )
    assert rows(gzip.compress(data)) == [
        ["/etc/hi", "f", False, 3, 0, 420, 0, 0],
        ["/gone", "f", True, 3, 0, 420, 0, 0],
        ["/dir", "d", False, 0, 0, 493, 0, 0],
    ]


def test_names_are_normalised_as_they_always_were() -> None:
    """`.` and `./` are the root; other names stay; only whiteouts at the top are known as such."""
    data = layer(
        (".", tarfile.DIRTYPE, 0),
        ("./", tarfile.DIRTYPE, 0),
        ("plain", tarfile.SYMTYPE, 0),
        ("./sub/.wh.x", tarfile.LNKTYPE, 0),
        ("./.wh..wh.plnk", tarfile.DIRTYPE, 0),
        ("./.wh..wh..opq", tarfile.DIRTYPE, 0),
    )
    assert [row[:3] for row in rows(data)] == [
        ["/", "d", False],
        ["/", "d", False],
        ["plain", "s", False],
        ["/sub/.wh.x", "l", False],
    ]


def test_every_type_has_its_letter() -> None:
    """And an unknown one is `u`."""
    kinds = {
        b"0": "f",
        b"1": "l",
        b"2": "s",
        b"3": "c",
        b"4": "b",
        b"5": "d",
        b"6": "i",
        b"7": "t",
        b"Z": "u",
    }
    data = layer(*(("x", kind, 0) for kind in kinds if kind != b"7"))
    assert [row[1] for row in rows(data)] == [letter for kind, letter in kinds.items() if kind != b"7"]
    assert rows(layer(("x", b"7", 0))[:512])[0][1] == "t"


def test_names_that_are_not_text_are_listed_all_the_same() -> None:
    """JSON has only text; what is not, is replaced."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("caf\udce9"))
    assert rows(out.getvalue())[0][0] == "caf\ufffd"


def test_an_empty_layer_lists_nothing() -> None:
    """As an empty list."""
    assert rows(b"") == rows(bytes(1024)) == []


def test_what_is_no_archive_is_unreadable() -> None:
    """The client is told; no half list is given."""
    with pytest.raises(Unreadable):
        rows(b"no archive" * 100)


def test_a_listing_ends_at_its_limit() -> None:
    """It is held in memory, so it has one."""
    data = layer(*((f"./{n}", b"5", 0) for n in range(100)))
    with pytest.raises(TooMuch):
        listing([data], limit_bytes=1 << 20, limit_listing_bytes=1000)


def extended(*bodies: bytes) -> bytes:
    """A file behind PAX headers of these contents."""
    out = b""
    for body in bodies:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, len(body)
        out += info.tobuf() + body + bytes(-len(body) % 512)
    return out + layer(("file", tarfile.REGTYPE, 0o644))


def test_what_extends_one_entry_is_bounded_in_sum() -> None:
    """However many headers it comes in."""
    with pytest.raises(Unreadable, match="for one entry"):
        listing(
            [extended(*(pax(number, 600_000) for number in range(3)))], limit_bytes=4 << 20, limit_listing_bytes=1 << 20
        )
    assert len(rows(extended(pax(0, 600_000)))) == 1


def pax(number: int, size: int) -> bytes:
    """One record of about that many bytes, with a key of its own."""
    body = b" k%06d=" % number + b"v" * size + b"\n"
    length = len(body) + 6
    return b"%06d" % length + body


def test_many_small_records_are_read_in_one_pass() -> None:
    """A megabyte of them; what is left is not read again for each of them."""
    assert len(rows(extended(b"6 a=b\n" * 150_000))) == 1
