"""The two checksums of Registry v1: of the bytes as they travel, and of an archive's contents (tarsum).

Pure: bytes in, text out. Knows versions 0, 1 and `dev` of tarsum, over SHA-256 or SHA-512.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cmp_to_key
from typing import TYPE_CHECKING, Final

from api.v1.archive import FILE_TYPES, Entry, entries
from api.v1.unpack import PIECE_BYTES, TooMuch, Unpacked, unpack

if TYPE_CHECKING:
    from hashlib import _Hash

TARSUM: Final = "tarsum"  # how every text form begins
_FORM = re.compile(r"(tarsum(?:\.v1|\.dev)?)\+(sha256|sha512):([0-9a-f]+)", re.ASCII)


def payload_hash(json: bytes) -> _Hash:
    """Begin the payload checksum: json, one newline, then whatever the layer's bytes are."""
    return hashlib.sha256(json + b"\n")


def payload_checksum(running: _Hash) -> str:
    """Write a payload checksum as it stands in headers."""
    return f"sha256:{running.hexdigest()}"


@dataclass(frozen=True, slots=True)
class Form:
    """How a tarsum is to be computed: `tarsum`, `tarsum.v1` or `tarsum.dev`, and the hash."""

    version: str
    algorithm: str

    @classmethod
    def of(cls, text: str) -> Form | None:
        """Read the form of a written tarsum; None if it is none that we know."""
        match = _FORM.fullmatch(text)
        return cls(match[1], match[2]) if match else None


@dataclass(frozen=True, slots=True)
class _Sum:
    """One entry's digest; the path only as a hash, because all entries are held at once."""

    digest: bytes
    path: bytes
    position: int


def tarsum(form: Form, json: bytes, layer: Iterable[bytes], *, limit_bytes: int, limit_entries: int) -> str:
    """Compute a tarsum over an image's json and its layer as stored.

    Raises:
        Unreadable: the layer is no archive.
        TooMuch: it is past a limit.
    """
    whole = hashlib.new(form.algorithm, json)
    for entry in _sorted(_sums(form, Unpacked(unpack(layer), limit_bytes), limit_entries)):
        whole.update(entry.digest.hex().encode())
    return f"{form.version}+{form.algorithm}:{whole.hexdigest()}"


def _sums(form: Form, source: Unpacked, limit_entries: int) -> Iterator[_Sum]:
    for position, (entry, data) in enumerate(entries(source)):
        if position >= limit_entries:
            raise TooMuch(f"the layer has more than {limit_entries} entries")
        running = hashlib.new(form.algorithm, b"".join(header_text(form, entry)))
        if entry.type in FILE_TYPES:
            for part in data:
                running.update(part)
        yield _Sum(running.digest(), _path_key(entry.name), position)
    while source.some(PIECE_BYTES):
        pass  # a stream that breaks off behind its archive is damaged all the same


def header_text(form: Form, entry: Entry) -> Iterator[bytes]:
    """Yield what is hashed of a header: field names and values without anything between."""
    yield from (b"name", entry.name, b"mode", _decimal(entry.mode))
    yield from (b"uid", _decimal(entry.uid), b"gid", _decimal(entry.gid), b"size", _decimal(entry.size))
    if form.version == TARSUM:
        yield from (b"mtime", _decimal(entry.mtime))
    yield from (
        b"typeflag",
        entry.type,
        b"linkname",
        entry.linkname,
        b"uname",
        entry.uname,
        b"gname",
        entry.gname,
    )
    yield from (b"devmajor", _decimal(entry.devmajor), b"devminor", _decimal(entry.devminor))
    if form.version != TARSUM:
        for name, value in sorted(entry.xattrs.items()):
            yield from (name, value)


def _decimal(number: int) -> bytes:
    return b"%d" % number


def _path_key(name: bytes) -> bytes:
    clean = posixpath.normpath(b"/" + name).lstrip(b"/")
    return hashlib.blake2b(clean, digest_size=16).digest()


def _sorted(sums: Iterator[_Sum]) -> list[_Sum]:
    """Sort by digest, but entries of one path by position.

    The two orders can contradict each other. Engines then get what their sort makes of it; so do we.
    """
    held = list(sums)
    repeated = any(count > 1 for count in Counter(entry.path for entry in held).values())
    if not repeated:
        return sorted(held, key=lambda entry: entry.digest)
    return sorted(held, key=cmp_to_key(_compare))


def _compare(one: _Sum, other: _Sum) -> int:
    if one.path == other.path:
        return one.position - other.position
    return (one.digest > other.digest) - (one.digest < other.digest)
