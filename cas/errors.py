"""What can go wrong in the engine, told apart by whose fault it is and what to do next.

Layer: L0. Knows neither HTTP statuses nor exit codes: `api/errors.py` and `tools/exits.py` map these classes.
"""

from __future__ import annotations


class CasError(Exception):
    """Everything the engine raises on purpose; anything else that escapes is our bug."""


class InvalidDigest(CasError):
    """The caller's text is not a digest. Theirs to fix; retrying is useless."""


class InvalidName(CasError):
    """The caller's text cannot name anything here. Theirs to fix; retrying is useless."""


class Missing(CasError):
    """No such digest or name here. Nobody's fault: ask elsewhere, or upload it."""


class Mismatch(CasError):
    """The caller's bytes do not hash to the caller's digest. Theirs to fix: send the right bytes."""


class Damaged(CasError):
    """Our stored bytes contradict our own checksum or index. Never served; pushing the same content again heals it."""


class NoSpace(CasError):
    """The disk is full. Nothing was lost; free some space and send it again."""


class DiskFailed(CasError):
    """The disk refused a write or a sync. What stood on it was dropped unacknowledged; send it again."""


class OtherDisk(DiskFailed):
    """A file cannot get that name in one step: it is one of another disk, or of another part of it. Choose another."""


class Unreadable(DiskFailed):
    """A file of the store cannot be opened or read at present. Nothing says that what is in it is damaged."""


class Forbidden(Unreadable):
    """The system keeps this user from a file of the store. Mend its owner, permissions or mount."""


class ReadOnly(CasError):
    """The disk failed twice, so the store takes no more writes. Reads go on; an operator must look at the disk."""


class Superseded(CasError):
    """Another request went on with this resumable upload, finished or cancelled it. Ask how far it is, then go on."""


class Busy(CasError):
    """A write waited too long for another process. Nothing was changed; try again."""


class Closed(CasError):
    """This store object was closed by its owner. Open it anew."""


class OpenError(CasError):
    """A folder could not be opened as a store. Nothing in it was changed."""


class NotAStore(OpenError):
    """The folder holds something else. Point --root at a store, or at an empty or new folder."""


class FormatTooNew(OpenError):
    """A newer version wrote this store. Upgrade `cas`."""


class UnsafeFilesystem(OpenError):
    """Locks or memory maps of the folder's filesystem, mostly one on a network, cannot be trusted. Use a local disk."""


class IndexMissing(OpenError):
    """The packs are here but the index is not. `cas fsck --rebuild-index` makes it anew from the packs."""


class IndexUnfit(OpenError):
    """The index is another store's, or older than the packs. `cas fsck --rebuild-index --force` makes it anew."""


class PacksMissing(OpenError):
    """The index is here but no pack is. Mount their disk, or restore a backup."""


class RootReadOnly(OpenError):
    """The folder cannot be written. Mend its permissions or mount, or choose another."""


class NotOwner(OpenError):
    """The store belongs to another user, who could not use what this one would write there. Run it as its owner."""


class IndexPresent(OpenError):
    """A new index was asked for and there is one. Keep it, or say that it is to be moved aside."""


class Occupied(OpenError):
    """The folder holds something else already, so no copy of a store can be put there. Choose an empty or new one."""


class InUse(OpenError):
    """Another process has the store open, and this work needs it alone. Stop the other first."""
