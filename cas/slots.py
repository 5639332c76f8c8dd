"""The file of the index's reader slots: it gets its blocks before LMDB maps it.

LMDB makes it by its length alone and writes it through the map, where a disk without room ends the process by SIGBUS.
So does one that writes to another place than the last time, if that has no room; btrfs can be told not to.

Layer: L1.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from contextlib import suppress
from typing import Final

from cas.errors import NoSpace

_FILE: Final = "lock.mdb"
_SLOT_BYTES: Final = 64  # LMDB's MDB_reader fills a line of the processor's cache
_HEAD_SLOTS: Final = 8  # what comes before the slots, MDB_txninfo, is smaller than that
_KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE: how long the file is stays LMDB's affair, and that of others who have it
_BLOCK_BYTES: Final = 512  # of st_blocks
_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS, see ioctl_iflags(2)
_SET_FLAGS: Final = 0x40086602  # FS_IOC_SETFLAGS
_IN_PLACE: Final = 0x00800000  # FS_NOCOW_FL
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate  # Python's writes zeros where the filesystem cannot do it
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def allocate(place: str, max_readers: int) -> None:
    """Make the file if it is not there, and see to it that none of its blocks is missing.

    Args:
        place: folder of the environment, which this process has not open: to close any descriptor of the file ends
            the process's locks of it.
        max_readers: as for `lmdb.open`.

    Raises:
        NoSpace: there is no room for it.
    """
    wanted = (max_readers + _HEAD_SLOTS) * _SLOT_BYTES
    try:
        fd = os.open(os.path.join(place, _FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        if error.errno in _FULL:
            raise _no_space(wanted) from error
        return  # LMDB says why, or needs none where nothing can be written
    try:
        if not (size := os.fstat(fd).st_size):
            _keep_in_place(fd)
        wanted = max(wanted, size)
        if not _has_room(fd, wanted):
            raise _no_space(wanted)
    finally:
        os.close(fd)


def _keep_in_place(fd: int) -> None:
    """Have an empty file written where its blocks are, for good; most filesystems do no other, and refuse."""
    with suppress(OSError):
        (flags,) = struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, bytes(struct.calcsize("l"))))
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", flags | _IN_PLACE))


def _has_room(fd: int, wanted: int) -> bool:
    while _fallocate(fd, _KEEP_SIZE, 0, wanted):
        if (number := ctypes.get_errno()) != errno.EINTR:
            return number not in _FULL and _would_fit(fd, wanted)
    return True


def _would_fit(fd: int, wanted: int) -> bool:
    """Tell whether there is room for what is missing, on a filesystem that does not set it aside."""
    there, disk = os.fstat(fd).st_blocks * _BLOCK_BYTES, os.fstatvfs(fd)
    return there >= wanted or disk.f_bavail * disk.f_frsize >= wanted - there


def _no_space(wanted: int) -> NoSpace:
    return NoSpace(
        f"the disk is full (no room for {wanted:,} bytes of the index's lock file); free some space and try again"
    )
