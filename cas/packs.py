"""Packs as files: appending to the ones this process opened.

Layer: L3. A pack is appended to by one holder at a time and never by a process that did not create it, so a torn tail
is a matter for readers only. Maintenance may close a data pack in its owner's place while nobody holds it: who holds
one has its byte of `locks/packs` locked, and believes a free one to be open only after a look at its row.
After a failed write or sync the pack is poisoned: nothing beyond its last good sync is ever named, and nobody appends
to it again (I1).
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final, NoReturn

from cas.direct import BLOCK
from cas.disk import open_or_make, refusals
from cas.errors import CasError, DiskFailed, NoSpace
from cas.locks import lock_byte, removed
from cas.records import HEADER_SIZE, Body, Header, Role, encode_footer, encode_header, encode_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cas.config import EngineSettings
    from cas.direct import Aligned
    from cas.disk import Disk
    from cas.layout import Layout

_EARLY_BYTES: Final = 128 * 1024  # appended at once: so many are worth a call of the kernel to begin with them


class PackWriter:
    """One open pack. Not safe for two threads at once: `PackPool` lends it to one upload at a time."""

    def __init__(self, disk: Disk, layout: Layout, header: Header, failed: Callable[[], None]) -> None:
        self.pack, self.role = header.pack, header.role
        self._disk, self._marker, self._failed = disk, header.marker, failed
        path = layout.pack(header.pack)
        self._fd = disk.create(path)
        self._records: list[int] = []
        try:
            self._end = disk.write(self._fd, [encode_header(header)], 0)
        except CasError:
            disk.close(self._fd)
            with contextlib.suppress(CasError):
                disk.unlink(path)
            raise
        self.synced = 0
        self.poisoned = False
        self._folder: object = path.parent
        self._layout = layout
        self._direct: int | None = None  # a second descriptor, opened when first needed

    @property
    def end(self) -> int:
        """Bytes appended so far."""
        return self._end

    def append(self, buffers: Sequence[bytes | bytearray | memoryview], *, early: bool = False) -> int:
        """Append buffers back to back; return the offset of the first.

        Args:
            buffers: what to append.
            early: whether the disk is to begin with them at once, and not when they are synced.

        Raises:
            NoSpace: nothing of it was appended; go on elsewhere or later.
            DiskFailed: the pack is poisoned.
        """
        offset = self._end
        with self._appending():
            self._end += self._disk.write(self._fd, buffers, offset)
        if early and self._end - offset >= _EARLY_BYTES:
            self._disk.begin_sync(self._fd, offset, self._end - offset)
        return offset

    def append_direct(self, window: Aligned) -> int:
        """Append a window that was laid out for this offset past the page cache; its ragged ends as `append` does.

        Raises:
            NoSpace, DiskFailed: as for `append`.
        """
        data, offset = window.bytes, self._end
        if self._direct is None:
            self._direct = self._disk.open_direct(self._layout.pack(self.pack))
        head = min(-offset % BLOCK, len(data))
        tail = head + (len(data) - head) // BLOCK * BLOCK
        with self._appending():
            self._disk.write(self._fd, [data[:head]], offset)
            self._disk.write_direct(self._fd, self._direct, data[head:tail], offset + head)
            self._disk.write(self._fd, [data[tail:]], offset + tail)
            self._end += len(data)
        return offset

    @contextlib.contextmanager
    def _appending(self) -> Iterator[None]:
        self._check()
        offset = self._end
        try:
            yield
        except NoSpace:
            self._cut_to(offset)  # a part of it may have been written
            raise
        except CasError:
            self._poison()
            raise

    @property
    def is_unlinked(self) -> bool:
        """Whether its file has no name any more."""
        return not self._disk.is_linked(self._fd)

    @property
    def last_record(self) -> int:
        """Where the last record begins; 0 if there is none."""
        return self._records[-1] if self._records else 0

    def encode(self, body: Body, at: int, previous: int) -> bytes:
        """Encode a record that will begin at a place, behind the one that begins at `previous`."""
        return encode_record(body, marker=self._marker, offset=at, previous=previous)

    def append_record(self, record: bytes, at: int) -> int:
        """Append a record that was encoded for this place; return the offset just past it."""
        assert at == self._end, "a record says where it lies"
        self._records.append(self.append([record]))
        return self._end

    def commit(self, body: Body) -> int:
        """Append a record; return the offset just past it. Durable only after `sync`."""
        return self.append_record(self.encode(body, self._end, self.last_record), self._end)

    def sync(self) -> None:
        """Make everything appended durable, and the file's entry in its folder the first time.

        Raises:
            DiskFailed: the pack is poisoned; what was not synced before is lost for good.
        """
        self._check()
        end = self._end
        try:
            self._disk.sync(self._fd)
            if self._folder is not None:
                self._disk.sync_folder(self._layout.pack(self.pack).parent)
                self._folder = None
        except CasError as error:
            self._poison()
            raise DiskFailed(f"{error}; pack {self.pack:016x} takes no more writes") from error
        self.synced = end

    def roll_back(self, end: int) -> None:
        """Cut off what lies past `end`: bytes no record names, whose space a full disk needs back."""
        end = max(end, HEADER_SIZE)
        if self.poisoned or end >= self._end:
            return
        self._cut_to(end)
        while self._records and self._records[-1] >= end:
            self._records.pop()

    def _cut_to(self, end: int) -> None:
        try:
            self._disk.truncate(self._fd, end)
            self._end = end
        except CasError:
            self._poison()

    def _poison(self) -> None:
        if not self.poisoned:
            self.poisoned = True
            self._failed()

    def seal(self) -> None:
        """Write the footer, sync, and take the right to write from the file.

        What it lists is durable before: a footer is believed without a look at the chunks, also after a power cut.
        """
        if self.synced < self._end:
            self.sync()
        self.append([encode_footer(self._records, at=self._end, marker=self._marker)])
        self.sync()
        self._disk.seal(self._fd)

    def close(self) -> None:
        """Close the file."""
        self._disk.close(self._fd)
        if self._direct is not None and self._direct >= 0:
            self._disk.close(self._direct)

    def _check(self) -> None:
        if self.poisoned:
            raise DiskFailed(f"pack {self.pack:016x} is out of use after a disk error; try again")


class PackPool:
    """Packs this process may append to, lent to one holder at a time."""

    def __init__(  # noqa: PLR0913 - the last five are how it tells others, and have no other way in
        self,
        disk: Disk,
        layout: Layout,
        settings: EngineSettings,
        *,
        store: bytes,
        clock: Callable[[], float],
        register: Callable[[int, Role], None],
        sealed: Callable[[int, int], None],
        is_open: Callable[[int], bool],
        forget: Callable[[int], None],
        failed: Callable[[], None],
    ) -> None:
        """Lend packs.

        Args:
            disk, layout, settings: where and how.
            store: id of the store, for the header.
            clock: seconds since 1970, for the header.
            register: told of a new pack *before* its file exists, so that openers find every pack in the index.
            sealed: told of a sealed pack's id and size.
            forget: told of a pack that was registered and could not be made.
            is_open: whether a pack of this process is still open for the index, or was closed in its place.
            failed: told of each failure of the disk, once.
        """
        self._disk, self._layout, self._settings = disk, layout, settings
        self._store, self._clock, self._forget = store, clock, forget
        self._register, self._sealed, self._is_open, self._failed = register, sealed, is_open, failed
        self._free: list[PackWriter] = []
        self._guards: dict[int, int] = {}  # data packs that are lent → the descriptor that locks their byte
        self._lock, self._closed = threading.Lock(), False

    def take(self, role: Role = Role.DATA) -> PackWriter:
        """Lend a pack: a free one that is still open, else a new one."""
        while (writer := self._take_free(role)) is not None:
            if self._claim(writer):
                return writer
            writer.close()
        return self.create(role)

    def give_back(self, writer: PackWriter) -> None:
        """Take a pack back; a full one is sealed, a poisoned one closed."""
        with self._lock:
            lasting = writer.end < self._settings.pack_bytes and not self._closed and not writer.poisoned
            if lasting:
                self._let_go(writer.pack)
                self._free.append(writer)
        if not lasting:
            self._retire(writer)

    def close(self) -> None:
        """Seal what is open and free; what is lent is sealed when it comes back."""
        with self._lock:
            self._closed = True
        while (writer := self._take_free()) is not None:
            if self._claim(writer):
                self._retire(writer)
            else:
                writer.close()

    def forget_unlinked(self) -> None:
        """Close free packs that others closed and removed: only then is their space free."""
        with self._lock:
            for writer in [writer for writer in self._free if writer.is_unlinked]:
                self._free.remove(writer)
                writer.close()

    def create(self, role: Role) -> PackWriter:
        """Make a pack and lend it.

        Raises:
            NoSpace, DiskFailed: there is none.
        """
        pack = int.from_bytes(self._disk.random(8), "big") or 1
        self._guard(pack, role)  # before anybody can find it
        try:
            self._register(pack, role)
            return self._make(Header(role, pack, self._store, self._disk.random(16), int(self._clock())))
        except BaseException:
            with contextlib.suppress(CasError):
                self._forget(pack)
            self._let_go(pack)
            raise

    def _make(self, header: Header) -> PackWriter:
        try:
            return PackWriter(self._disk, self._layout, header, self._failed)
        except DiskFailed:
            self._failed()  # of the file alone: a failure of the index counts where it happens
            raise

    def finish(self, writer: PackWriter) -> None:
        """Seal a pack made by `create`, whose row the caller sets.

        Raises:
            NoSpace, DiskFailed: nothing of it may be believed; `discard` it.
        """
        writer.seal()
        writer.close()
        self._let_go(writer.pack)

    def discard(self, writer: PackWriter) -> None:
        """Remove a pack made by `create` that nothing names."""
        writer.close()
        with contextlib.suppress(CasError):
            self._disk.unlink(self._layout.pack(writer.pack))
        self._let_go(writer.pack)

    def _take_free(self, role: Role | None = None) -> PackWriter | None:
        with self._lock:
            found = next((writer for writer in self._free if role in (None, writer.role)), None)
            if found is not None:
                self._free.remove(found)
            return found

    def _claim(self, writer: PackWriter) -> bool:
        """Hold a free pack, or find that it was closed in our place."""
        try:
            self._guard(writer.pack, writer.role)
            if self._is_open(writer.pack):
                return True
        except CasError:
            pass  # whoever is closing it holds its byte
        self._let_go(writer.pack)
        return False

    def _guard(self, pack: int, role: Role) -> None:
        """Lock a data pack's byte; the journal is closed within a write transaction, which is lock enough."""
        if role is Role.JOURNAL:
            return
        fd = lock_pack(self._layout, pack)
        if fd is None:
            self._refuse(pack)
        self._guards[pack] = fd

    def _refuse(self, pack: int) -> NoReturn:
        """Say why a pack's byte was not to be had."""
        try:
            with refusals("lock a pack"):
                os.close(open_or_make(self._layout.pack_locks))
        except FileNotFoundError:
            raise DiskFailed(removed(self._layout.locks.name)) from None
        raise DiskFailed(f"pack {pack:016x} is locked by another process; try again")

    def _let_go(self, pack: int) -> None:
        fd = self._guards.pop(pack, -1)
        if fd >= 0:
            os.close(fd)

    def _retire(self, writer: PackWriter) -> None:
        try:
            if not writer.poisoned:
                writer.seal()
                self._sealed(writer.pack, writer.end)
        except CasError:
            pass  # an unsealed pack is whole: only its rebuild has to search for records instead of reading a list
        finally:
            writer.close()
            self._let_go(writer.pack)


def lock_pack(layout: Layout, pack: int) -> int | None:
    """Lock a data pack's byte without waiting; return the descriptor to close, or None if somebody has it."""
    return lock_byte(layout.pack_locks, pack >> 2, 0)  # offsets in files have a sign; packs are named at random
