"""The parts of one open store, handed around as one value.

Layer: L6. Only wiring: what each part does stands in its own module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from cas.claims import RunningHashes
    from cas.codec import ChunkCodec
    from cas.commit import Committer
    from cas.config import EngineSettings
    from cas.direct import Buffers
    from cas.disk import Disk
    from cas.hands import Hands
    from cas.index import Index
    from cas.layout import Layout
    from cas.packfiles import PackFiles
    from cas.packs import PackPool
    from cas.pins import Pins
    from cas.window import Spares


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything an upload or a reader needs.

    Attributes:
        owner: this process's lease id.
        clock: seconds since 1970.
        hashers: threads that hash beside the chunking one.
        cutters: threads that cut one window while the next one is received.
        syncers: threads that sync a finished run while the next one arrives.
        appenders: threads that write one window while the next one is cut.
        hashes: of resumable uploads between their requests.
        hands: on resumable uploads that are being written to.
        pins: on what readers and uploads here rely on.
        windows: memory for copies of those windows; bounded, whatever the number of uploads.
        spares: memory for the windows themselves, used again.
        steps: memory for what is read ahead of a comparison; bounded too.
        heal: to be called when something was stored while blobs are lost; returns at once.
    """

    settings: EngineSettings
    layout: Layout
    disk: Disk
    index: Index
    codec: ChunkCodec
    committer: Committer
    packs: PackPool
    files: PackFiles
    owner: bytes
    clock: Callable[[], float]
    hashers: ThreadPoolExecutor
    cutters: ThreadPoolExecutor
    syncers: ThreadPoolExecutor
    appenders: ThreadPoolExecutor
    windows: Buffers
    spares: Spares
    steps: Buffers
    hashes: RunningHashes
    pins: Pins
    hands: Hands
    heal: Callable[[], None]

    def check_room(self, size: int) -> None:
        """Refuse what would add `size` bytes where a disk of the store has only left what is kept for deletes.

        Raises:
            NoSpace: as for `Disk.check_room`.
        """
        for folder in self.layout.growing:
            self.disk.check_room(folder, size, self.settings.reserve)
