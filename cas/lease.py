"""Who is alive: each process holds a kernel lock on a file of its own, which the kernel drops however it ends.

Layer: L3. No clock, no process id, no heartbeat (I7). Every caller holds the root folder's lock, so that nobody sees a
lease between its creation and its lock. Files can be removed under those who have them open, so each process is seen a
second time: it shares a byte of the folder of all packs, which nobody can do without. The files by whose locks they see
what the others are about are there before a lease is, so where one lacks beside a lease, somebody removed it.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from cas.errors import Busy, CasError, DiskFailed, InUse, NoSpace
from cas.files import moved_away
from cas.locks import is_byte_locked, lock_folder, locked_bytes, open_shared, removed, share_byte, try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cas.layout import Layout

_POLL_S = 0.1
_DEATH_S = 1.0  # the kernel takes a dying process's locks one after the other
OWNER_SIZE = 16  # bytes of an owner's id


class Lease:
    """This process's own lock."""

    def __init__(self, layout: Layout, owner: bytes) -> None:
        self.owner, self._layout = owner, layout
        with ExitStack() as undo:
            shared = [(path, _made(path, undo)) for path in layout.shared_locks]  # before this process is seen
            fd = try_lock(layout.lease(owner), create=True)
            assert fd is not None, "an owner's id is random and new"
            undo.callback(os.close, fd)
            self._place = _stand(layout, owner)  # in this order: who stands without a lease lost it
            name = layout.locks.name  # clients are told, who need not know where
            self._files = [(str(layout.lease(owner)), os.fstat(fd), name)]
            self._files += [(str(path), made, f"{name}/{path.name}") for path, made in shared]
            self._open = undo.pop_all()

    def check(self) -> None:
        """See that others can see this process.

        Raises:
            DiskFailed: its lease was removed, or a file by whose locks it sees others; or a copy is in its place, and
                so perhaps in that of all the store.
        """
        for path, made, name in self._files:
            if not _is_still(path, made):
                raise DiskFailed(removed(name))

    def release(self) -> None:
        """End the lease of a process that leaves nothing behind."""
        if self._place is not None:
            os.close(self._place)
        self._layout.lease(self.owner).unlink(missing_ok=True)
        self._open.close()


def _made(path: Path, stack: ExitStack) -> os.stat_result:
    """Make an empty file if it is not there, and return which one it is: no other is taken for it while it is open."""
    fd = open_shared(path)
    stack.callback(os.close, fd)
    return os.fstat(fd)


def _is_still(path: str, made: os.stat_result) -> bool:
    """Whether a file that was opened by this name has it still."""
    try:
        return os.path.samestat(os.stat(path), made)
    except OSError:
        return False


def _stand(layout: Layout, owner: bytes) -> int | None:
    """Share an owner's byte of the folder of all packs; where a filesystem has no such thing, go on without."""
    with suppress(OSError):
        fd = os.open(layout.packs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            share_byte(fd, place(owner))
        except OSError:
            os.close(fd)
            raise
        return fd
    return None


def place(owner: bytes) -> int:
    """Return which byte of the folder of all packs an owner shares."""
    return int.from_bytes(owner[:8], "big") >> 2  # offsets in files have a sign


def standing(layout: Layout) -> set[int]:
    """Return the bytes that are shared by all who have the store open, whatever became of their leases."""
    try:
        fd = os.open(layout.packs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return set()
    try:
        return locked_bytes(fd)
    finally:
        os.close(fd)


def is_standing(layout: Layout, owner: bytes) -> bool:
    """Whether an owner has the store open, in this very folder."""
    with suppress(OSError):
        fd = os.open(layout.packs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return is_byte_locked(fd, place(owner))
        finally:
            os.close(fd)
    return False


@contextmanager
def visiting(layout: Layout, owner: bytes, wait_s: float) -> Iterator[None]:
    """Have a lease while one looks at the index of a store without opening that; where none can be had, have none.

    Raises:
        Busy: another process is opening the store and does not get done.
    """
    lease = None
    with suppress(OSError, DiskFailed, NoSpace), lock_folder(layout.root, wait_s):
        lease = Lease(layout, owner)
    try:
        yield
    finally:
        if lease is not None:
            lease.release()


@contextmanager
def maintenance_lock(layout: Layout, wait_s: float = 0.0) -> Iterator[None]:
    """Be the only one, in all processes, who takes something away from the store, or needs that nobody does.

    Args:
        layout: of the store.
        wait_s: how long to wait for somebody else.

    Raises:
        InUse: somebody else is at it.
        DiskFailed: the folder of all packs was moved away.
    """
    deadline = time.monotonic() + wait_s
    while (fd := try_lock(layout.maintenance, create=True)) is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    under_way = InUse(f"a collection, repair or backup of {layout.root} is under way; try again when it is done")
    if fd is None:
        raise under_way
    with ExitStack() as stack:
        stack.callback(os.close, fd)
        try:
            # The file can be removed under who has it, and made anew by the next one; the folder cannot.
            stack.enter_context(lock_folder(layout.packs, deadline - time.monotonic()))
        except Busy:
            raise under_way from None
        except FileNotFoundError:
            raise DiskFailed(moved_away(layout.packs)) from None
        yield


@contextmanager
def at_work(layout: Layout) -> Iterator[None]:
    """Let the scrub of any process wait meanwhile; where locks cannot be had, as on a read-only disk, it does not."""
    with ExitStack() as stack:
        with suppress(CasError):
            fd = open_shared(layout.work)
            stack.callback(os.close, fd)
            share_byte(fd, 0)  # nobody locks it alone
        yield


class OthersAtWork:
    """Whether anybody is `at_work`, in this process or another."""

    def __init__(self, layout: Layout) -> None:
        self._fd = open_shared(layout.work)

    def __bool__(self) -> bool:
        return is_byte_locked(self._fd, 0)

    def close(self) -> None:
        """Look no more."""
        os.close(self._fd)


def survey(layout: Layout, own: bytes) -> tuple[set[bytes], set[bytes]]:
    """Return the owners `(alive, dead)` other than `own`."""
    alive: set[bytes] = set()
    dead: set[bytes] = set()
    for owner in _leases(layout):
        if owner == own:
            continue
        try:
            fd = try_lock(layout.lease(owner))
        except FileNotFoundError:
            continue
        (alive if fd is None else dead).add(owner)
        if fd is not None:
            os.close(fd)
    return alive, dead


def present(layout: Layout) -> set[bytes]:
    """Return the owners of all who have a store open.

    Raises:
        InUse: some have whose leases were removed, or the lock file of the index, or another one. They go on with files
            that have no name any more: whoever made others would not be seen by them, nor see them, and take what they
            rely on.
    """
    deadline = time.monotonic() + _DEATH_S
    while True:
        alive = survey(layout, b"")[0] if layout.locks.is_dir() else set[bytes]()
        for path in (layout.index_lock, *layout.shared_locks) if alive else ():
            if not path.exists():  # it is there before a lease is, so nobody made it meanwhile
                raise InUse(removed(path))
        if standing(layout) <= {place(owner) for owner in _leases(layout)}:
            return alive
        if time.monotonic() >= deadline:
            raise InUse(removed(layout.locks))
        time.sleep(_POLL_S)


def bury(layout: Layout, dead: set[bytes]) -> None:
    """Remove the leases of processes whose remains were put in order."""
    for owner in dead:
        layout.lease(owner).unlink(missing_ok=True)


def _leases(layout: Layout) -> list[bytes]:
    """Return the owners of all leases that are there, held or not."""
    try:
        owners = [_owner(path.name) for path in layout.locks.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [owner for owner in owners if owner is not None]


def _owner(filename: str) -> bytes | None:
    try:
        owner = bytes.fromhex(filename)
    except ValueError:
        return None
    return owner if len(owner) == OWNER_SIZE else None
