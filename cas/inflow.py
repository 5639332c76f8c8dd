"""The bytes of one upload on their way from whoever brings them to the runs: hashed and cut, in order.

Layer: L8. Small blobs are only gathered. Of an upload that is alone in its process and comes many bytes at a time, the
next ones are received while another thread cuts the last ones.
"""

from __future__ import annotations

from concurrent.futures import wait
from typing import TYPE_CHECKING

from cas.chunker import LONGEST_WANT, Chunker
from cas.hashing import Hashing
from cas.threads import submit
from cas.window import HEADROOM, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from cas.claims import Running
    from cas.hashing import Tap
    from cas.parts import Parts
    from cas.runs import Runs

_STEP_BYTES = 4 * 1024 * 1024  # a longer piece enters the window in steps, so that it cannot swell it (I5)


class Inflow:
    """What comes of one upload. For one thread at a time.

    Attributes:
        size: bytes taken so far; of an upload that was resumed, those of earlier requests included.
        safe: what earlier requests brought; a segment that covered less of it would take the rest back.
        running: the hash that names the blob, as far as it came.
    """

    def __init__(self, parts: Parts, runs: Runs, running: Running, taps: Sequence[Tap], safe: int = 0) -> None:
        self.size, self.safe, self.running = runs.start, safe, running
        self._parts, self._runs = parts, runs
        self._window = Window(parts.spares)
        self._chunker = Chunker()
        self._hashing = Hashing(parts.hashers, taps)
        self._cutting: Future[object] | None = None

    @property
    def is_small(self) -> bool:
        """Whether all that came goes into the index."""
        return self.size <= self._parts.settings.inline_bytes and not self._runs.start

    @property
    def few(self) -> memoryview:
        """All that came of a small blob."""
        return self._window.view()

    def take(self, pieces: Sequence[bytes]) -> None:
        """Take the next bytes.

        Raises:
            NoSpace, DiskFailed, ReadOnly, Busy, Superseded, Closed: as for `Upload.write`.
        """
        self.settle()
        self._hashing.show(pieces, self.size, self.running)
        for piece in pieces:
            for start in range(0, len(piece), _STEP_BYTES):
                step = memoryview(piece)[start : start + _STEP_BYTES]
                self._window.add(step, self._chunker.wants)
                self._advance(len(step))
        self._hashing.settle()
        self._keep_up()

    def draw(self, read: Callable[[memoryview], int], left: int, most: int) -> int:
        """Take the next bytes from `read`; see `Upload.draw`."""
        if most >= _STEP_BYTES < left and self._is_under_way and self._window.is_alone:
            return self._draw_ahead(read)
        self.settle()
        with self._window.room(min(left, most, _STEP_BYTES), min(left, LONGEST_WANT)) as room:
            got = read(room)
            data = room[:got]
            self._hashing.show([data], self.size, self.running)
            self._window.fill(got)
            self._advance(got, is_last=got == left)
            if got < left:
                self._hashing.settle()  # else `end` cuts them first
        self._keep_up()
        return got

    def rest(self) -> None:
        """Hold no collection up while no bytes come."""
        self.settle()
        self._keep_up()

    def settle(self) -> None:
        """Wait until what came is hashed, and cut as far as can be."""
        self._settle_cutting()
        self._hashing.settle()

    def end(self) -> None:
        """Cut what is left, since no more will come, and hash it while the disk is at work on that."""
        if not self.is_small:
            self.cut_rest()
        self.settle()

    def cut_rest(self) -> None:
        """Cut what is left."""
        self._settle_cutting()
        if len(self._window):
            self._cut(final=True)

    def abandon(self) -> None:
        """Wait until nobody looks at anything any more."""
        if self._cutting is not None:
            wait([self._cutting])
        self._hashing.abandon()

    def release(self) -> None:
        """Give the memory back."""
        self._window.clear()

    @property
    def _is_under_way(self) -> bool:
        """Whether it is known how it is cut, and what a cut leaves fits before the bytes that come meanwhile."""
        return self._chunker.profile is not None and self._chunker.wants <= HEADROOM

    def _draw_ahead(self, read: Callable[[memoryview], int]) -> int:
        """Receive while what came before is cut and hashed, then have that done to these bytes, too."""
        got = read(self._window.ahead(_STEP_BYTES))
        self.settle()
        came = self._window.go_on(got)
        self._hashing.show([came], self.size, self.running)
        self.size += got
        if len(self._window) >= self._chunker.wants:
            self._cutting = submit(self._parts.cutters, self._cut_on)
        return got

    def _settle_cutting(self) -> None:
        cutting, self._cutting = self._cutting, None
        if cutting is not None:
            cutting.result()

    def _cut_on(self) -> None:
        self._cut(final=False)
        self._keep_up()

    def _advance(self, size: int, *, is_last: bool = False) -> None:
        """Cut what can be cut now that the window has so many bytes more; the last ones are cut at the end."""
        self.size += size
        if not (is_last or self.is_small) and len(self._window) >= self._chunker.wants:
            self._cut(final=False)

    def _keep_up(self) -> None:
        """File what came once a collection has begun since it was looked up, so that it does not wait for the rest."""
        if self._runs.is_outdated and self._runs.end >= self.safe:
            self._runs.end_run()

    def _cut(self, *, final: bool) -> None:
        view = self._window.view()
        at, chunks = 0, []
        for length in self._chunker.cut(view, final=final):
            chunks.append(view[at : at + length])
            at += length
        profile = self._chunker.profile
        self._runs.take(chunks, compress=profile is not None and profile.compress, aside=not final)
        self._window.drop(at)
        if self._runs.is_long and self._runs.end >= self.safe:
            self._runs.end_run()
