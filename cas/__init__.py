"""The engine: an embedded, deduplicating, content-addressed store that knows bytes, digests and names, and no HTTP.

This is its public face; `docs/design.md` tells what it promises and how.
"""

from cas.backup import restore
from cas.change import Blob, Names, Reads
from cas.check import inspect_index
from cas.claims import Progress, Unfinished
from cas.collect import CollectReport
from cas.compact import CompactReport
from cas.config import EngineSettings
from cas.digest import Digest
from cas.errors import (
    Busy,
    CasError,
    Closed,
    Damaged,
    DiskFailed,
    Forbidden,
    FormatTooNew,
    IndexMissing,
    IndexPresent,
    IndexUnfit,
    InUse,
    InvalidDigest,
    InvalidName,
    Mismatch,
    Missing,
    NoSpace,
    NotAStore,
    NotOwner,
    Occupied,
    OpenError,
    OtherDisk,
    PacksMissing,
    ReadOnly,
    RootReadOnly,
    Superseded,
    Unreadable,
    UnsafeFilesystem,
)
from cas.extent import FileRange
from cas.finding import CHECKS, LOST, PUSH, REBUILD, REPAIR, Depth, Finding, Scope
from cas.hashing import Tap
from cas.held import Held, Places
from cas.identity import demand_no_half, inspect_manifest, mend_manifest
from cas.mirror import CopyReport
from cas.names import Name, Record
from cas.reader import Packed, Reader
from cas.rebuild import RebuildReport, rebuild_index
from cas.receive import Upload
from cas.recover import check_source
from cas.repair import RepairReport
from cas.scrub import Scrubbed
from cas.session import UploadState
from cas.staged import Staged
from cas.stats import Stats
from cas.store import Store
from cas.usage import Holder, Holders, Usage

__all__ = [
    "CHECKS",
    "LOST",
    "PUSH",
    "REBUILD",
    "REPAIR",
    "Blob",
    "Busy",
    "CasError",
    "Closed",
    "CollectReport",
    "CompactReport",
    "CopyReport",
    "Damaged",
    "Depth",
    "Digest",
    "DiskFailed",
    "EngineSettings",
    "FileRange",
    "Finding",
    "Forbidden",
    "FormatTooNew",
    "Held",
    "Holder",
    "Holders",
    "InUse",
    "IndexMissing",
    "IndexPresent",
    "IndexUnfit",
    "InvalidDigest",
    "InvalidName",
    "Mismatch",
    "Missing",
    "Name",
    "Names",
    "NoSpace",
    "NotAStore",
    "NotOwner",
    "Occupied",
    "OpenError",
    "OtherDisk",
    "Packed",
    "PacksMissing",
    "Places",
    "Progress",
    "ReadOnly",
    "Reader",
    "Reads",
    "RebuildReport",
    "Record",
    "RepairReport",
    "RootReadOnly",
    "Scope",
    "Scrubbed",
    "Staged",
    "Stats",
    "Store",
    "Superseded",
    "Tap",
    "Unfinished",
    "Unreadable",
    "UnsafeFilesystem",
    "Upload",
    "UploadState",
    "Usage",
    "check_source",
    "demand_no_half",
    "inspect_index",
    "inspect_manifest",
    "mend_manifest",
    "rebuild_index",
    "restore",
]
