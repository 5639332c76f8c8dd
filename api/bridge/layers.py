"""What is in layers, found out once: their digests unpacked, and what one generation's clients get for the other's.

    layer    DIGEST    {"diff": …, "entries": …, "gzip": …, "gzip_bytes": …}    a blob, and the same archive in gzip

Such a row keeps nothing alive, and is good for as long as both blobs are here. A layer is read as a stream, however
large it is; what unpacks to more than a limit, or to no archive, is remembered by this process, so that nobody can
have it unpacked over and over. Blocking; no HTTP.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, final

from zstandard import ZstdDecompressor, ZstdError

from api.bridge.to_v1 import Blob
from api.bridge.to_v2 import Inside
from api.content.values import content, record
from api.v1.archive import entries
from api.v1.images import read_blob
from api.v1.unpack import PIECE_BYTES, TooMuch, Unpacked, Unreadable, unpack
from cas import Damaged, Digest, Name, Names, Reads, Staged, Store, Upload

LAYER: Final = "layer"
LEAST_BYTES: Final = 10  # old engines choke on shorter layers, and nothing real is

_GZIP: Final = b"\x1f\x8b\x08"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_SKIPPED: Final = tuple(bytes((0x50 + each, 0x2A, 0x4D, 0x18)) for each in range(16))
_ZSTD_WINDOW_BYTES: Final = 128 << 20  # what `zstd --long` needs; real layers need 8 MiB
_ZSTD_STEP_BYTES: Final = 1 << 10  # this much may unpack to 32 MiB at once
_GZIP_LEVEL: Final = 6
_WRITE_BYTES: Final = 1 << 20
_REMEMBERED: Final = 10_000


class BadLayer(Exception):
    """A layer that cannot be had in another form. The pusher's fault: push a good one."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in a layer, and the gzip form that was made of it, if it was."""

    inside: Inside
    staged: Staged | None = None


@final
class Layers:
    """Looks into the layers of a store, some at once; `tick` is called for each piece and may raise to stop."""

    def __init__(self, store: Store, limit_bytes: int, tick: Callable[[], object] = bool, at_once: int = 1) -> None:
        self._store, self._limit, self._tick = store, limit_bytes, tick
        self._turns = threading.BoundedSemaphore(at_once)
        self._bad: OrderedDict[Digest, str] = OrderedDict()

    def is_zstd(self, digest: Digest) -> bool:
        """Tell whether a layer is packed so that clients of Registry v1 cannot read it."""
        return _is_zstd(self._head(digest))

    def look(self, digest: Digest, made: ExitStack) -> Found:
        """Say what is in a layer; what has to be made for that ends with `made`, unless a change keeps it.

        Raises:
            BadLayer: it is no archive, damaged, or unpacks to more than the limit.
            Missing, Damaged: it cannot be read.
        """
        known = self._store.read(lambda reads: _known(reads, digest))
        if known is not None:
            return Found(known)
        with self._turns:
            if digest in self._bad:
                raise BadLayer(self._bad[digest])
            try:
                return self._unpack(digest, made)
            except (Unreadable, TooMuch) as error:
                self._remember(digest, str(error))
                raise BadLayer(str(error)) from None

    def _remember(self, digest: Digest, why: str) -> None:
        self._bad[digest] = why
        if len(self._bad) > _REMEMBERED:
            self._bad.popitem(last=False)

    def _head(self, digest: Digest) -> bytes:
        with self._store.reader(digest) as reader:
            return bytes(reader.read(0, min(reader.size, len(_ZSTD))))

    def _unpack(self, digest: Digest, made: ExitStack) -> Found:
        head = self._head(digest)
        packer = None if head.startswith(_GZIP) else _Packer(made.enter_context(self._store.upload()))
        running = hashlib.sha256()

        def pieces() -> Iterator[bytes]:
            blocks = read_blob(self._store, digest)
            for piece in _unzstd(blocks) if _is_zstd(head) else unpack(blocks):
                self._tick()
                running.update(piece)
                if packer is not None:
                    packer.write(piece)
                yield piece

        source = Unpacked(pieces(), self._limit)
        has_entries = next(entries(source), None) is not None
        while source.some(PIECE_BYTES):
            pass
        staged = None if packer is None else packer.finish()
        size = self._store.stat(digest).size
        blob = Blob(digest, size) if staged is None else Blob(staged.digest, staged.size)
        return Found(Inside(Digest("sha256", running.digest()), has_entries, blob), staged)


def put(names: Names, digest: Digest, found: Found) -> None:
    """Remember what was found in a layer, as part of a change that needs its gzip form."""
    if found.staged is not None:
        names.keep(found.staged)
    inside = found.inside
    said = {"diff": str(inside.diff), "entries": inside.has_entries}
    said |= {"gzip": str(inside.blob.digest), "gzip_bytes": inside.blob.size}
    value = record(said)
    if names.get(_name(digest)) != value:
        names.put(_name(digest), value)


def _known(reads: Reads, digest: Digest) -> Inside | None:
    found = reads.get(_name(digest))
    if found is None:
        return None
    said = content(found)
    gzip = Digest.parse(said["gzip"])
    try:
        if reads.stat(gzip) is None:
            return None
    except Damaged:
        return None  # made anew, it is whole again
    return Inside(Digest.parse(said["diff"]), said["entries"], Blob(gzip, said["gzip_bytes"]))


def _name(digest: Digest) -> Name:
    return Name(LAYER, str(digest))


def _is_zstd(head: bytes) -> bool:
    return head.startswith((_ZSTD, *_SKIPPED))


@final
class _Packer:
    """Writes a stream into an upload, packed; the same stream always gives the same bytes."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._gzip = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # its head has no time or name
        self._held = bytearray()

    def write(self, piece: bytes) -> None:
        self._held += self._gzip.compress(piece)
        if len(self._held) >= _WRITE_BYTES:
            self._flush()

    def finish(self) -> Staged:
        self._held += self._gzip.flush()
        self._flush()
        return self._upload.finish()

    def _flush(self) -> None:
        self._upload.write(bytes(self._held))
        self._held.clear()


def _unzstd(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack frame after frame, in pieces of bounded size.

    Raises:
        Unreadable: it is damaged or ends too early.
    """
    decoder = ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
    inside = False
    for block in blocks:
        for start in range(0, len(block), _ZSTD_STEP_BYTES):
            left = block[start : start + _ZSTD_STEP_BYTES]
            while left:
                try:
                    piece = decoder.decompress(left)
                except ZstdError as error:
                    raise Unreadable(f"the compressed stream is damaged: {error}") from None
                yield from (piece[at : at + PIECE_BYTES] for at in range(0, len(piece), PIECE_BYTES))
                inside, left = not decoder.eof, decoder.unused_data if decoder.eof else b""
                if decoder.eof:
                    decoder = ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
    if inside:
        raise Unreadable("the compressed stream ends too early")
