"""Healing: a lost blob comes back when a push brings what was damaged of it, whatever that push was of.

Layer: L9. Of a chunk that is bad or gone, another one of the same key stands in. A key proves nothing (I3), so the blob
is read to its end and pushed anew from that, through the one door for bytes: only its digest brings it back. The
thread is there only while blobs are lost, and what it gives up is tried again after the next push.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cas.errors import CasError, Closed, Damaged, DiskFailed, Mismatch
from cas.extent import Codec
from cas.receive import begin
from cas.tables import ChunkState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cas.commit import Draft
    from cas.digest import Digest
    from cas.index import Edit
    from cas.parts import Parts
    from cas.records import BlobEntry, ChunkRef
    from cas.tables import ChunkRow
    from cas.view import View

_SLICE: Final = 100
_WINDOW_BYTES: Final = 1 << 20  # handed to the upload at a time


@dataclass(frozen=True, slots=True)
class _Outlook:
    """What a lost blob was like when it was last looked at.

    Attributes:
        recipe: the one that it had.
        lacks: the key of a chunk that nothing stands in for; None if nothing lacks, or a segment is gone.
        tried: sums up the chunks that stood in for others, and were proven wrong together.
    """

    recipe: int
    lacks: bytes | None = None
    tried: bytes = b""


class Healing:
    """Looks after the lost blobs of one process's store."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "cas-heal")  # makes its thread when it is first needed
        self._lock = threading.Lock()  # of one look after another
        self._outlook: dict[Digest, _Outlook] = {}
        self._parts: Parts | None = None
        self._asked = threading.Event()
        self._closing = False

    def start(self, parts: Parts) -> None:
        """Say whose blobs these are."""
        self._parts = parts

    def wake(self) -> None:
        """Have a look soon; to be called when something was stored while blobs are lost."""
        if not self._asked.is_set():
            self._asked.set()
            with contextlib.suppress(RuntimeError):  # it was shut down
                self._pool.submit(self._look)

    def close(self) -> None:
        """End, in the middle of a blob if need be; the next opener goes on."""
        self._closing = True
        self._pool.shutdown()

    def run(self) -> list[Digest]:
        """Bring back what can be; return which blobs those are.

        Raises:
            NoSpace, DiskFailed, ReadOnly, Busy, Closed: nothing was lost by it; do it again.
        """
        assert self._parts is not None
        with self._lock:
            healed: list[Digest] = []
            last: Digest | None = None
            while blobs := self._parts.index.read(lambda view, last=last: view.lost_after(last, _SLICE)):  # type: ignore[misc]
                last = blobs[-1].digest
                healed += [blob.digest for blob in blobs if self._heal(self._parts, blob)]
            return healed

    def _look(self) -> None:
        self._asked.clear()  # first: what is stored from now on asks anew
        with contextlib.suppress(CasError):
            self.run()

    def _heal(self, parts: Parts, blob: BlobEntry) -> bool:
        known = self._outlook.get(blob.digest, _Outlook(blob.recipe))
        lacks = known.lacks
        if blob.inline is not None or (
            known.recipe == blob.recipe and lacks and not parts.index.read(lambda view: _alike(view, lacks))
        ):
            return False
        found = _stand_ins(parts, blob)
        if isinstance(found, _Outlook) or found.tried == known.tried:
            self._outlook[blob.digest] = found if isinstance(found, _Outlook) else known
            return False
        for choice in range(found.choices):
            with contextlib.suppress(Mismatch, Damaged, FileNotFoundError):
                if bring_back(parts, blob.digest, _bytes(parts, blob, choice, self._go_on)):
                    self._outlook.pop(blob.digest, None)
                    return True
        self._outlook[blob.digest] = _Outlook(blob.recipe, tried=found.tried)
        return False

    def _go_on(self) -> None:
        if self._closing:
            raise Closed("this store was closed; open it anew")


@dataclass(slots=True)
class _Found:
    """Every chunk of a lost blob is here, or another one that has its key."""

    tried: bytes
    choices: int


def _stand_ins(parts: Parts, blob: BlobEntry) -> _Found | _Outlook:
    """Look up what a blob could be read from; tell what lacks if it cannot."""
    sums, choices = hashlib.blake2b(digest_size=16), 1
    at = 0
    while at < blob.size:
        segment = parts.index.read(lambda view, at=at: _segment(view, blob.recipe, at))  # type: ignore[misc]
        if segment is None:
            return _Outlook(blob.recipe)
        for ref, rows in segment:
            if not rows:
                return _Outlook(blob.recipe, lacks=ref.key)
            for row in rows:
                sums.update(row.salt.to_bytes(4, "big"))
            choices = max(choices, len(rows))
            at += ref.raw
    return _Found(sums.digest(), choices)


def _segment(view: View, recipe: int, at: int) -> list[tuple[ChunkRef, list[ChunkRow]]] | None:
    """Return a segment's chunks, each with what its bytes may be read from; None if there is no segment there."""
    stretch = view.stretch(recipe, at)
    if stretch is None or stretch.start != at or not stretch.packed_refs:
        return None
    found = []
    for ref in stretch.refs:
        own = view.chunk(ref)
        is_good = own is not None and own.state is not ChunkState.BAD
        rows = [own] if own is not None and is_good else _alike(view, ref.key)
        found.append((ref, [row for row in rows if row.extent.raw == ref.raw]))
    return found


def _alike(view: View, key: bytes) -> list[ChunkRow]:
    """Return the good chunks of a key."""
    return [row for row in view.chunks([key])[0] if row.state is ChunkState.GOOD]


def bring_back(parts: Parts, digest: Digest, pieces: Iterable[bytes]) -> bool:
    """Push a lost blob anew from what may be its bytes; say whether somebody still wanted it.

    Raises:
        Mismatch: they are not.
        NoSpace, DiskFailed, ReadOnly, Busy: as for any upload.
    """
    with begin(parts, digest.algorithm, ()) as upload:
        for data in pieces:
            upload.write(data)
        staged = upload.finish(digest)

        def keep(edit: Edit, draft: Draft) -> bool:
            held = edit.is_held(digest)
            if held:
                staged.keep(edit, draft)
            return held

        held = bool(parts.committer.run(keep))
        staged.release()
        return held


def _bytes(parts: Parts, blob: BlobEntry, choice: int, go_on: Callable[[], None]) -> Iterator[bytes]:
    """Yield what may be a blob's bytes; where several chunks stand in for one, the one of this number.

    Raises:
        Damaged, FileNotFoundError: some cannot be read.
        Closed: by `go_on`, called before each chunk.
    """
    at = 0
    while at < blob.size:
        pin = parts.pins.take()
        try:
            segment = parts.index.read(lambda view, at=at: _segment(view, blob.recipe, at))  # type: ignore[misc]
            if segment is None or not all(rows for _, rows in segment):
                raise Damaged(f"what blob {blob.digest} could be read from went meanwhile; it is tried again")
            window: list[bytes | bytearray] = []
            for ref, rows in segment:
                go_on()
                window.append(_raw(parts, rows[min(choice, len(rows) - 1)]))
                at += ref.raw
                if sum(map(len, window)) >= _WINDOW_BYTES:
                    yield b"".join(window)
                    window = []
            yield b"".join(window)
        finally:
            pin.release()


def _raw(parts: Parts, row: ChunkRow) -> bytes | bytearray:
    extent = row.extent
    try:
        data = parts.files.read(extent.pack, extent.offset, extent.stored)
    except DiskFailed as error:
        raise Damaged(str(error)) from error  # of this blob, as far as healing goes; others are tried
    return data if extent.codec is Codec.RAW else parts.codec.decode(data, extent.raw)
