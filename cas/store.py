"""The facade: a store, opened by one process, shared by its threads. Read the public verbs and you know the engine.

Layer: L9.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from cas.change import Blob, Names, Reads, change, find_blob
from cas.claims import RunningHashes, cancel, expire, is_stale, progress, unfinished
from cas.codec import ChunkCodec
from cas.commit import Committer
from cas.config import EngineSettings
from cas.direct import Buffers
from cas.disk import Disk
from cas.doubts import Doubts
from cas.enrol import PackRows
from cas.errors import Busy, Missing, NoSpace
from cas.hands import Hands
from cas.heal import Healing
from cas.held import hold
from cas.index import Index
from cas.kinship import hold_together
from cas.lease import OWNER_SIZE, Lease
from cas.locks import lock_folder
from cas.names import Name
from cas.packfiles import PackFiles
from cas.packs import PackPool
from cas.parts import Parts
from cas.pins import Pins
from cas.reader import Reader
from cas.receive import begin
from cas.resume import Resumed
from cas.root import check_index, find, make_pack_folders
from cas.settle import settle
from cas.tables import PACKS_GONE
from cas.track import STEPS
from cas.turns import Turn, turn
from cas.upkeep import Upkeep
from cas.window import Spares

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from cas.claims import Progress, Unfinished
    from cas.digest import Digest
    from cas.hashing import Tap
    from cas.held import Held, Places
    from cas.layout import Layout
    from cas.names import Record
    from cas.receive import Upload
    from cas.records import BlobEntry
    from cas.root import Manifest
    from cas.view import View

    Clock = Callable[[], float]

T = TypeVar("T")
_SYNC_THREADS = 4
_COPIES = 4  # windows being written while the next ones are cut: 20 MiB at most
_CUTTERS = 1  # for an upload that is alone
_SPARES = 8  # windows of uploads that are over, kept for those to come; what each ever held, mostly 1 or 2 MiB
_TRACKS = 2  # uploads of what is stored, compared with what is read ahead: 8 MiB at most
_EXPIRED_AT_ONCE = 64  # sessions forgotten in one commit
_DEFAULTS = EngineSettings()


def _foundations(
    layout: Layout, settings: EngineSettings, owner: bytes, index: Index
) -> tuple[Lease, Committer, Pins, Hands]:
    """Open what this process alone has of a store; whatever fails, nothing stays open."""
    with contextlib.ExitStack() as undo:
        lease = Lease(layout, owner)
        undo.callback(lease.release)
        pins = Pins(index, layout)
        undo.callback(pins.close)
        found = lease, Committer(index, layout, settings, lease), pins, Hands(layout)
        undo.pop_all()
    return found


class Store(Upkeep):
    """A store. Blocking; safe to share between threads; one object per process and root.

    Bytes go in by `upload`, become visible by a `change` that keeps them under a name, and come out by `reader`.
    """

    def __init__(
        self, layout: Layout, manifest: Manifest, settings: EngineSettings, disk: Disk, clock: Clock, index: Index
    ) -> None:
        """Not for callers: use `Store.open`."""
        owner = disk.random(OWNER_SIZE)
        self._lease, committer, pins, hands = _foundations(layout, settings, owner, index)
        self._closed = False
        self._packs_gone = 0  # when files were last let go of
        self._healing = Healing()
        rows = PackRows(index, committer, owner)
        self._doubts = Doubts(committer, index)
        packs = PackPool(
            disk,
            layout,
            settings,
            store=manifest.id,
            clock=clock,
            register=rows.register,
            sealed=rows.sealed,
            is_open=rows.is_open,
            forget=rows.forget,
            failed=committer.note_failure,
        )
        self._parts = Parts(
            settings=settings,
            layout=layout,
            disk=disk,
            index=index,
            codec=ChunkCodec(settings.zstd_level, settings.zstd_min_saving),
            committer=committer,
            packs=packs,
            files=PackFiles(disk, layout, settings.open_packs, self._doubts.note),
            owner=owner,
            clock=clock,
            hashers=ThreadPoolExecutor(settings.hash_threads, "cas-hash"),
            cutters=ThreadPoolExecutor(_CUTTERS, "cas-cut"),
            syncers=ThreadPoolExecutor(_SYNC_THREADS, "cas-sync"),
            appenders=ThreadPoolExecutor(_COPIES, "cas-append"),
            windows=Buffers(_COPIES),
            spares=Spares(_SPARES),
            steps=Buffers(_TRACKS * STEPS),
            hashes=RunningHashes(),
            pins=pins,
            hands=hands,
            heal=self._healing.wake,
        )
        committer.start(packs)
        self._healing.start(self._parts)

    @classmethod
    def open(
        cls,
        root: Path,
        settings: EngineSettings = _DEFAULTS,
        *,
        create: bool = False,
        reading: bool = False,
        disk: Disk | None = None,
        clock: Clock = time.time,  # noqa: TID251 - the default of an argument
    ) -> Self:
        """Open the store at `root`; with `create`, make one where there is nothing.

        Args:
            root: the store's folder.
            settings: tunables.
            create: whether to make a new store.
            reading: whether nothing is to be written; then anybody may open it, not its owner alone.
            disk: the file layer, for tests that break it.
            clock: seconds since 1970.

        Raises:
            OpenError: the folder is no store, too new, on a network, read-only, another user's, or lacks its index.
            DiskFailed, NoSpace, Damaged: it is a store, and broken.
        """
        disk = disk or Disk()
        layout, manifest = find(root, create=create, reading=reading, disk=disk, wait_s=settings.write_wait_s)
        with lock_folder(root, settings.write_wait_s), contextlib.ExitStack() as undo:
            has_index = check_index(layout)  # only here: a rebuild may have been cut off while we waited
            index = undo.enter_context(contextlib.closing(Index(layout.index, settings)))
            if not has_index:
                disk.sync_folder(layout.index)
            newest = hold_together(layout, manifest, index)
            make_pack_folders(layout, disk)
            settings = settings.fitted(disk.free_bytes(layout.packs)[1])
            store = cls(layout, manifest, settings, disk, clock, index)
            undo.pop_all()
            try:
                store._parts.committer.steps_over = not (reading and store.is_backup())
                with contextlib.suppress(NoSpace):  # what is there can be read; a later tick, or change, settles
                    settle(store._parts, newest)
            except BaseException as error:
                store.__exit__(type(error), error, None)
                raise
        return store

    def close(self) -> None:
        """Finish what waits, seal this process's packs, and end its lease. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        parts = self._parts
        self._healing.close()
        for pool in (parts.hashers, parts.cutters, parts.syncers, parts.appenders):
            pool.shutdown()
        parts.packs.close()
        parts.committer.close()
        parts.files.close()
        parts.pins.close()
        parts.hands.close()
        parts.index.close()
        self._lease.release()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; by Ctrl-C, leave all as it is, as if killed: it may have come within any step that others wait for."""
        if kind is not KeyboardInterrupt:
            self.close()

    def upload(self, *, algorithm: str = "sha256", taps: Sequence[Tap] = ()) -> Upload:
        """Begin to take a blob's bytes, all of them in one go.

        Args:
            algorithm: what `finish` will name the blob by, unless it is told to expect another digest.
            taps: fed every byte in order beside the store's own hash, e.g. other hash objects; they have seen
                all of them once `finish` returned, not before.
        """
        return begin(self._parts, algorithm, taps)

    def resume(self, number: int, *, algorithm: str = "sha256") -> Upload:
        """Begin a resumable upload or go on with it; `Upload.size` tells from which byte on.

        Nothing is stored before the first byte is. Of two that go on from the same byte at the same time, the first
        whose bytes are safe has gone on, and the other one is `Superseded`.

        Args:
            number: 64 bits that name the upload, chosen at random by the caller; nobody can guess another's.
            algorithm: as for `upload`.

        Raises:
            Missing: it was finished or cancelled.
        """
        return Resumed(self._parts, number, algorithm)

    def progress(self, number: int) -> Progress | None:
        """Return how a resumable upload stands: `size` bytes of it are safe; None if nothing of it ever was.

        It goes on to tell that an upload was finished (`done`, with its digest) or cancelled for
        `upload_tombstone_s` seconds.
        """
        return self._parts.index.read(lambda view: progress(view, number))

    def cancel(self, number: int) -> bool:
        """Forget the bytes of a resumable upload and let nobody go on with it; False if it was over before.

        Raises:
            NoSpace, DiskFailed, ReadOnly, Busy, Closed: nothing was changed.
        """
        now = int(self._parts.clock())
        return bool(self._parts.committer.run(lambda edit, _: cancel(edit, number, now)))

    def unfinished(self) -> Unfinished:
        """Count the resumable uploads that may still go on."""
        return self._parts.index.read(unfinished)

    def expire_uploads(self, open_before: float, over_before: float, *, dry_run: bool = False) -> int:
        """Forget resumable uploads that nobody touched for long, in small steps; return how many.

        One that somebody writes to at that moment is not forgotten, in however slow a request.

        Args:
            open_before: those unfinished that were last touched before this time (Unix seconds).
            over_before: those finished or cancelled before this time.
            dry_run: change nothing, and return how many it would be.
        """

        def stale(view: View) -> list[int]:
            return idle([number for number, row in view.sessions() if is_stale(row, open_before, over_before)])

        def idle(numbers: Sequence[int]) -> list[int]:
            return [number for number in numbers if not self._parts.hands.are_at(number)]

        def forget(some: Sequence[int]) -> int:
            return int(self._parts.committer.run(lambda edit, _: expire(edit, idle(some), open_before, over_before)))

        numbers = self._parts.index.read(stale)
        if dry_run:
            return len(numbers)
        steps = range(0, len(numbers), _EXPIRED_AT_ONCE)
        return sum(forget(numbers[start : start + _EXPIRED_AT_ONCE]) for start in steps)

    def stat(self, digest: Digest) -> Blob:
        """Return what is known of a blob.

        Raises:
            Missing: no such blob.
        """
        entry = self._entry(digest)
        return Blob(digest, entry.size, entry.created)

    def reader(self, digest: Digest) -> Reader:
        """Return a reader of a blob's bytes; close it.

        Raises:
            Missing: no such blob.
        """
        pin = self._parts.pins.take()
        try:
            return Reader(self._parts, self._entry(digest), pin)
        except BaseException:
            pin.release()  # at once: an error can live long, and what it saw with it
            raise

    def hold(self, places: Places) -> Held | None:
        """Return a blob with all its files open, ready to be read; close it.

        None if one of them is gone since `Reads.content` found it there: then `reader` tells where the blob is now.
        """
        return hold(self._parts.files, places)

    def get(self, name: Name) -> Record | None:
        """Return what stands under a name, or None."""
        return self.read(lambda reads: reads.get(name))

    def scan(
        self, kind: str, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> list[tuple[Name, Record]]:
        """Return up to `limit` names of a kind whose path begins with `prefix` and follows `after`, in byte order."""
        return self.read(lambda reads: reads.scan(kind, prefix, after=after, limit=limit))

    def read(self, look: Callable[[Reads], T]) -> T:
        """Look several things up as they stood at one moment, and return what `look` returned.

        `look` is quick, may be run again from the start, and lets nothing of the `Reads` out.
        """
        return self._parts.index.read(lambda view: look(Reads(view)))

    def read_now(self, look: Callable[[Reads], T]) -> T | None:
        """Look several things up as `read` does, unless that means to wait for anybody: then return None.

        For an event loop, and for rows that were looked at a moment ago: others may still have to come from the disk.
        """
        return self._parts.index.read_now(lambda view: look(Reads(view)))

    def moment(self) -> int | None:
        """Return the number of the present moment, which every change moves on; never waits: None is not known now."""
        return self._parts.index.moment()

    def change(self, edit: Callable[[Names], T], *, frees: bool = False) -> T:
        """Change names atomically and durably; return what `edit` returned once it cannot be lost any more (I1).

        `edit` may be run again from the start, so it touches only the names it is given and is quick; it raises to
        refuse, and then nothing of it happens. What `frees` space, now or later, may use the last of a full disk.

        Raises:
            NoSpace, DiskFailed, ReadOnly, Busy, Closed: nothing was changed.
        """
        return change(self._parts, edit, frees=frees)

    def turn(self, work: str, wait_s: float) -> Turn:
        """Wait for a turn with work to be done once, among all processes; in the end go on without. Owners end it."""
        return turn(self._parts.layout, work, wait_s)

    def let_go(self) -> None:
        """Close packs that others removed since the last call; only then is their space free, and they may wait for it.

        To be called every second or so: where none was removed, all it costs is a look at a number.

        Raises:
            NoSpace, DiskFailed, ReadOnly, Busy: try again.
        """
        gone = self._parts.index.read(lambda view: view.number(PACKS_GONE))
        if gone != self._packs_gone:
            self._forget_unlinked()
            self._packs_gone = gone

    def _forget_unlinked(self) -> None:
        self._parts.files.forget_unlinked()
        self._parts.packs.forget_unlinked()
        self._parts.committer.forget_unlinked()

    def tick(self) -> None:
        """Keep house: free what dead processes and packs held, forget stale uploads. To be called about once a minute.

        Raises:
            NoSpace, DiskFailed, ReadOnly, Busy: try again at the next tick.
        """
        self._parts.index.check_readers()
        self._forget_unlinked()
        self._doubts.catch_up()
        now, settings = self._parts.clock(), self._parts.settings
        self.expire_uploads(now - settings.upload_life_s, now - settings.upload_tombstone_s)
        if self._parts.index.read(lambda view: view.count("lost")):
            self._healing.wake()  # whoever pushed what lacks may have died before it was used
        with contextlib.suppress(Busy), lock_folder(self._parts.layout.root, 0):
            settle(self._parts)  # if somebody else is at it, or was stopped in the middle, the next tick will see

    def _entry(self, digest: Digest) -> BlobEntry:
        entry = self._parts.index.read(lambda view: find_blob(view, digest))
        if entry is None:
            raise Missing(f"no blob {digest} is stored here")
        return entry
