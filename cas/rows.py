"""The stored form of a row of the index: sealed by a sum, and in pieces of a page each where it is longer than that.

Layer: L1. LMDB puts a value that does not fit beside others into pages that follow each other. Of those that were freed
few do, after a while, and whoever wants 17 of them has all looked through: a push took 150 ms in a store that had let
go of 25,000 small blobs. A page by itself is always to be had.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, cast, final

import xxhash

from cas.errors import Damaged

if TYPE_CHECKING:
    import lmdb

PIECES = "pieces"  # the table that has all of a long row but its beginning
LONG = frozenset({"blobs", "lost", "sessions"})  # tables that may have long rows: those of bytes that clients sent
HEAD_BYTES = 4080  # a page of 4 KiB without its header; rows of older versions may be longer
_SEAL_BYTES = 4  # enough to notice rot; against ill will nothing in the index helps
_COUNT = struct.Struct(">H")
_FIRST_BYTES = HEAD_BYTES - _COUNT.size
_PIECE_BYTES = HEAD_BYTES - _SEAL_BYTES


def sealed(key: bytes, value: bytes) -> bytes:
    """Return a value with its sum, which covers its key."""
    return value + xxhash.xxh3_64_digest(key + value)[:_SEAL_BYTES]


def unsealed(key: bytes, stored: bytes) -> bytes:
    """Return what was sealed.

    Raises:
        Damaged: it is not what was written.
    """
    value = stored[:-_SEAL_BYTES]
    if xxhash.xxh3_64_digest(key + value)[:_SEAL_BYTES] != stored[-_SEAL_BYTES:]:
        raise Damaged("a row of the index is damaged; stop the server and run cas fsck --rebuild-index --force")
    return value


@final
class Pieces:
    """What follows the heads of long rows, within one transaction. A head says how many pieces follow it."""

    __slots__ = ("_db", "_txn")

    def __init__(self, txn: lmdb.Transaction, db: lmdb._Database) -> None:
        self._txn, self._db = txn, db

    def put(self, table: str, key: bytes, row: bytes) -> bytes:
        """Put what is too long of a sealed row; return its head, which is all of it mostly."""
        if len(row) < HEAD_BYTES:
            return row
        parts = [row[at : at + _PIECE_BYTES] for at in range(_FIRST_BYTES, len(row), _PIECE_BYTES)]
        keys = _keys(table, key, len(parts))
        self._txn.cursor(db=self._db).putmulti(
            [(each, sealed(each, part)) for each, part in zip(keys, parts, strict=True)]
        )
        return row[:_FIRST_BYTES] + _COUNT.pack(len(parts))

    def whole(self, table: str, key: bytes, head: bytes) -> bytes:
        """Return the sealed row that begins with a head.

        Raises:
            Damaged: a piece is not what was written.
        """
        if len(head) != HEAD_BYTES or table not in LONG:
            return head
        keys = _keys(table, key, *_COUNT.unpack_from(head, _FIRST_BYTES))
        found = cast("list[tuple[bytes, bytes]]", self._txn.cursor(db=self._db).getmulti(keys))
        if not found:
            return head  # an older version wrote it, and it happens to be as long
        return head[:_FIRST_BYTES] + b"".join(unsealed(*each) for each in found)

    def drop(self, table: str, key: bytes, head: bytes | None) -> None:
        """Remove the pieces of a row that goes, or changes."""
        if head is not None and len(head) == HEAD_BYTES:
            for each in _keys(table, key, *_COUNT.unpack_from(head, _FIRST_BYTES)):
                self._txn.delete(each, db=self._db)


def _keys(table: str, key: bytes, count: int) -> list[bytes]:
    start = table[:1].encode() + key
    return [start + _COUNT.pack(number) for number in range(count)]
