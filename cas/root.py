"""A folder as a store: making one, and refusing what is not one, with the reason and the remedy.

Layer: L4. Knows `store.json` and what must lie beside it; opens neither index nor packs. A checksum is in it, over the
other fields, whatever format they are of: no flipped bit makes it another store's.
"""

from __future__ import annotations

import json
import os
import pwd
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from cas.disk import Disk, is_full, leave_to_owner, write_file
from cas.errors import (
    CasError,
    FormatTooNew,
    IndexMissing,
    NoSpace,
    NotAStore,
    NotOwner,
    RootReadOnly,
    Unreadable,
    UnsafeFilesystem,
)
from cas.files import NO_FOLDER, rename_new
from cas.layout import Layout, names_in
from cas.lease import present
from cas.locks import lock_folder, open_shared
from cas.mounts import NETWORK_FILESYSTEMS, filesystem_type, is_read_only
from cas.profile import PACKED, PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FOLDER_MODE = 0o750  # what is in a store is nobody else's business: passwords' hashes, keys, private layers
FORMAT = 1
_ID_SIZE = 16  # bytes
_FIELDS = {"format", "id", "profiles"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `store.json` says."""

    format: int
    id: bytes


def find(
    root: Path,
    *,
    create: bool,
    reading: bool = False,
    disk: Disk,
    wait_s: float = 30.0,
    filesystem: Callable[[Path], str] = filesystem_type,
) -> tuple[Layout, Manifest]:
    """Return the layout and manifest of the store at `root`.

    Args:
        root: the folder.
        create: make a store where there is nothing.
        reading: nothing is to be changed, so that it need not be its owner who asks.
        disk: source of randomness and of folder syncs.
        wait_s: patience with another process that is opening it.
        filesystem: tells the type of the filesystem a path lies on.

    Raises:
        NotAStore, FormatTooNew, UnsafeFilesystem, RootReadOnly, NotOwner: see their texts.
        InUse: others have it open, and their locks were removed.
        Busy: another process is opening it and does not get done.
    """
    layout = Layout(root)
    if not _is_folder(root):
        if not create:
            raise NotAStore(
                f"{root.absolute()} does not exist; name your store by --root or CAS_ROOT, "
                f"or let `cas serve --root {root}` make one there"
            )
        _make_folder(root)
    check_filesystem(root, filesystem)
    if not reading:
        check_owner(layout)
    _check_writable(root)
    if layout.packs.is_dir():  # perhaps a disk of its own
        check_filesystem(layout.packs, filesystem)
        _check_mount(layout.packs)
    with lock_folder(root, wait_s):  # several processes may be the first
        if layout.manifest.exists():
            manifest = read_manifest(layout)
            present(layout)
            _demand_folders(layout)
            _make_missing([layout.locks], layout, disk)
            if reading:
                leave_lock_file(layout)
            return layout, manifest
        _demand_blank(layout, create=create)
        return layout, _make(layout, disk)


def _demand_blank(layout: Layout, *, create: bool) -> None:
    """Refuse a folder without a manifest, unless a store is to be made there and can be.

    Raises:
        NotAStore: it holds something else, or what is left of a store.
    """
    if has_remains(layout):
        raise NotAStore(f"{layout.manifest} is missing; {remake(layout)}")
    if not _is_blank(layout):
        raise NotAStore(f"{layout.root} is not a store (no store.json); give --root a store, or an empty or new folder")
    if not create:
        raise NotAStore(f"{layout.root} is empty; mount its disk, or let `cas serve --root {layout.root}` make a store")


def check_filesystem(root: Path, filesystem: Callable[[Path], str] = filesystem_type) -> None:
    """Refuse a folder in which no store can be opened.

    Raises:
        UnsafeFilesystem: it lies on a network.
    """
    kind = filesystem(root)
    if kind in NETWORK_FILESYSTEMS:
        raise UnsafeFilesystem(
            f"{root} lies on a network filesystem ({kind}), where locks and memory maps cannot be trusted; "
            "use a local disk"
        )


def check_owner(layout: Layout) -> None:
    """Refuse to write to a store of another user; where there is no store yet, anybody may make one.

    Raises:
        NotOwner: whoever serves it could not open what would be written.
    """
    owner = _owner(layout.manifest)
    if owner is None:  # lost, perhaps
        owner = _owner(layout.packs)
    if owner is None:
        return
    if owner != os.geteuid():
        name, own = user_name(owner), user_name(os.geteuid())
        raise NotOwner(
            f"the store at {layout.root} belongs to {name}, who could not use what {own} would write there; "
            f"{_remedy(owner, layout.root)}"
        )


def _demand_own(folder: Path) -> None:
    """Refuse a mount that gives what was just made to somebody else: the store could be opened this once only."""
    owner, own = _owner(folder), os.geteuid()
    if own not in (0, owner) and owner is not None:
        raise NotOwner(
            f"what {user_name(own)} makes in {folder.parent} belongs to {user_name(owner)}, as that is mounted; "
            f"mount it with the option uid={own}, or choose another --root"
        )


def _owner(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_uid
    return None


def leave_lock_file(layout: Layout) -> None:
    """See to it that the index's lock file is its owner's: LMDB would make it for whoever opens it first."""
    if layout.manifest.exists() and layout.index_data.exists():
        with suppress(CasError, FileNotFoundError):  # LMDB will say it better
            os.close(open_shared(layout.index_lock))


def _remedy(owner: int, root: Path) -> str:
    """Say how somebody who is not the owner of a folder goes on."""
    name, own = user_name(owner), os.geteuid()
    if own == 0:
        way = f"sudo -u {name}" if name.startswith("'") else f"runuser -u {name} --"  # which is there without sudo
        return f"run this as its owner: {way} cas ..."
    give = f"chown -R {user_name(own)} {root}"
    return f"run this as its owner: sudo -u {name} cas ..., or let root give it to {user_name(own)}: {give}"


def user_name(number: int) -> str:
    """Name a user as sudo takes it, which may have no name here."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"'#{number}'"


def check_index(layout: Layout) -> bool:
    """Say whether the index is there, and refuse a store that lost it.

    The folder without its file, and no pack anywhere: the making of this store was cut short, nothing was lost.

    Raises:
        IndexMissing: this store had an index.
    """
    if layout.index_data.is_file():
        return True
    if layout.index.is_dir() and not layout.index_data.exists() and not _has_packs(layout):
        return False
    raise IndexMissing(
        f"the index of {layout.root} is missing; "
        f"`cas fsck --rebuild-index --root {layout.root}` makes it anew from the packs"
    )


def _is_folder(root: Path) -> bool:
    try:
        if root.exists() and not root.is_dir():
            raise NotAStore(f"{root} is a file; give --root a folder")
        return root.exists()
    except PermissionError as error:
        raise RootReadOnly(
            f"{root} is out of reach of {user_name(os.geteuid())} ({error.strerror}); run this as the user "
            "whose store it is, mend the permissions of the folders above it, or choose another --root"
        ) from error


def _make_folder(root: Path) -> None:
    try:
        root.mkdir(FOLDER_MODE, parents=True)
    except OSError as error:
        raise _refusal(error, f"{root} cannot be made", "choose another --root") from error


def _check_mount(folder: Path) -> None:
    if is_read_only(folder):
        what = "on a mount, or in a snapshot, that is read-only"
        raise RootReadOnly(f"{folder} lies {what}; mend the mount, or choose another --root")


def _check_writable(root: Path) -> None:
    _check_mount(root)
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        owner, own = root.stat().st_uid, os.geteuid()
        remedy = f"mend its permissions: chmod u+rwx {root}" if owner == own else _remedy(owner, root)
        raise RootReadOnly(
            f"{root} belongs to {user_name(owner)}, and {user_name(own)} may not read and write there; {remedy}"
        )


def _is_blank(layout: Layout) -> bool:
    """Nothing here, or only what an interrupted `_make` leaves: the manifest comes last."""
    ours = {layout.index, layout.packs, layout.locks, layout.manifest.with_name("store.json.new")}
    if any(path not in ours and path.name != "lost+found" for path in layout.root.iterdir()):
        return False
    return not _has_packs(layout)


def _has_packs(layout: Layout) -> bool:
    return any(path.is_file() for path in layout.packs.rglob("*"))


def has_remains(layout: Layout) -> bool:
    """Whether there was a store here, be its manifest there or not: that is written before an index or a pack."""
    return layout.index_data.exists() or _has_packs(layout)


def remake(layout: Layout) -> str:
    """Return what helps where the manifest is damaged."""
    return (
        f"`cas fsck --repair --root {layout.root}` makes it anew if packs or index prove whose they are; "
        "else restore it from a backup"
    )


def _demand_folders(layout: Layout) -> None:
    """Refuse what has the name of a folder and is none, a link that leads nowhere among it.

    Raises:
        RootReadOnly: there is such a thing.
    """
    for folder in (layout.locks, layout.packs, *layout.pack_folders()):
        if not folder.is_dir() and os.path.lexists(folder):
            raise RootReadOnly(f"{folder} cannot be made: {NO_FOLDER}")


def make_pack_folders(layout: Layout, disk: Disk) -> None:
    """Make what is missing; not before it is known that no pack is: where their disk is not mounted, all of it is."""
    _make_missing([layout.packs, *layout.pack_folders()], layout, disk)


def _make_missing(folders: Sequence[Path], layout: Layout, disk: Disk) -> None:
    """Make folders durably: a backup, or an operator who tidied up, may have dropped empty ones."""
    missing = [folder for folder in folders if not folder.is_dir()]
    try:
        for folder in missing:
            folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            _leave_folder_to_owner(folder)
        if missing:
            for above in dict.fromkeys([*(folder.parent for folder in missing), layout.root]):
                disk.sync_folder(above)
    except OSError as error:
        what = f"{error.filename} cannot be made"
        raise _refusal(error, what, "mend permissions or mount, or choose another --root") from error


def _leave_folder_to_owner(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        leave_to_owner(folder, fd)
    finally:
        os.close(fd)


def _make(layout: Layout, disk: Disk) -> Manifest:
    manifest = Manifest(FORMAT, disk.random(_ID_SIZE))
    _make_missing([layout.locks], layout, disk)
    _demand_own(layout.locks)
    make_pack_folders(layout, disk)
    try:
        layout.index.mkdir(FOLDER_MODE, exist_ok=True)
        disk.sync_folder(layout.root)
        write_file(layout.manifest, encode_manifest(manifest))
    except OSError as error:
        raise _refusal(error, f"{layout.root} cannot be made a store", "choose another --root") from error
    return manifest


def put_manifest(layout: Layout, manifest: Manifest, disk: Disk) -> None:
    """Write `store.json` anew; what was there is kept aside. The caller holds the root's lock.

    Raises:
        NoSpace, RootReadOnly: see their texts.
    """
    try:
        if layout.manifest.exists():
            layout.quarantine.mkdir(FOLDER_MODE, exist_ok=True)
            places = names_in(layout.quarantine, layout.manifest.name)
            next(place for place in places if rename_new(layout.manifest, place))
            disk.sync_folder(layout.quarantine)
        write_file(layout.manifest, encode_manifest(manifest))
    except OSError as error:
        raise _refusal(error, f"{layout.manifest} cannot be made", "mend permissions or mount") from error


def _refusal(error: OSError, what: str, remedy: str) -> CasError:
    """Say what the system refuses; room that lacks is another matter than a right."""
    if is_full(error):
        return NoSpace(f"{what}: the disk is full ({error.strerror}); free some space and try again")
    if isinstance(error, FileExistsError | NotADirectoryError):
        return RootReadOnly(f"{what}: {NO_FOLDER}")
    return RootReadOnly(f"{what} ({error.strerror}); {remedy}")


def encode_manifest(manifest: Manifest) -> bytes:
    """Return what stands in `store.json`."""
    content = {"format": manifest.format, "id": manifest.id.hex(), "profiles": [asdict(PLAIN), asdict(PACKED)]}
    return json.dumps(content | {"sum": _sum(content)}, indent=1).encode() + b"\n"


def _sum(content: dict[str, Any]) -> str:
    return f"{xxhash.xxh3_64_intdigest(json.dumps(content, sort_keys=True).encode()):016x}"


def read_manifest(layout: Layout) -> Manifest:
    """Return what a store's `store.json` says.

    Raises:
        NotAStore, FormatTooNew, RootReadOnly, Unreadable: see their texts.
        FileNotFoundError: there is none.
    """
    if layout.manifest.exists() and not layout.manifest.is_file():  # a pipe would let us wait for ever
        raise Unreadable(f"{layout.manifest} cannot be read (it is no file); move it away, then {remake(layout)}")
    try:
        content = json.loads(layout.manifest.read_bytes())
        number, store = int(content["format"]), bytes.fromhex(content["id"])
        _prove(content)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise RootReadOnly(f"{layout.manifest} cannot be read; mend its permissions") from error
    except OSError as error:
        raise Unreadable(f"{layout.manifest} cannot be read ({error.strerror}); look at the system's log") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotAStore(f"{layout.manifest} is not a store's manifest ({error}); {remake(layout)}") from error
    if number > FORMAT:
        raise FormatTooNew(f"{layout.root} has store format {number}, this version knows up to {FORMAT}; upgrade cas")
    if number < 1 or len(store) != _ID_SIZE:
        raise NotAStore(f"{layout.manifest} is not a store's manifest; {remake(layout)}")
    return Manifest(number, store)


def _prove(content: dict[str, Any]) -> None:
    """Hold a manifest against its checksum; one of an older version has none.

    Raises:
        ValueError: a bit was flipped.
    """
    told = content.pop("sum", None)
    if told is None and content.keys() == _FIELDS:
        return
    if told != _sum(content):
        raise ValueError("its checksum is another")
