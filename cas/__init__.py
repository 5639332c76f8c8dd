"""The engine: an embedded, deduplicating, content-addressed store that knows bytes, digests and names, and no HTTP.

This is its public face; `docs/design.md` tells what it promises and how.
"""

from cas.change import Blob, Names, Reads
from cas.claims import Progress
from cas.config import EngineSettings
from cas.digest import Digest
from cas.errors import (
    Busy,
    CasError,
    Closed,
    Damaged,
    DiskFailed,
    FormatTooNew,
    IndexMissing,
    IndexPresent,
    InUse,
    InvalidDigest,
    InvalidName,
    Mismatch,
    Missing,
    NoSpace,
    NotAStore,
    OpenError,
    ReadOnly,
    RootReadOnly,
    Superseded,
    UnsafeFilesystem,
)
from cas.names import Name, Record
from cas.reader import FileRange, Reader
from cas.rebuild import RebuildReport
from cas.receive import Tap, Upload
from cas.session import UploadState
from cas.staged import Staged
from cas.store import Stats, Store, rebuild_index

__all__ = [
    "Blob",
    "Busy",
    "CasError",
    "Closed",
    "Damaged",
    "Digest",
    "DiskFailed",
    "EngineSettings",
    "FileRange",
    "FormatTooNew",
    "InUse",
    "IndexMissing",
    "IndexPresent",
    "InvalidDigest",
    "InvalidName",
    "Mismatch",
    "Missing",
    "Name",
    "Names",
    "NoSpace",
    "NotAStore",
    "OpenError",
    "Progress",
    "ReadOnly",
    "Reader",
    "Reads",
    "RebuildReport",
    "Record",
    "RootReadOnly",
    "Staged",
    "Stats",
    "Store",
    "Superseded",
    "Tap",
    "UnsafeFilesystem",
    "Upload",
    "UploadState",
    "rebuild_index",
]
