"""An OCI layout in the making: a folder into which whole files go, and its list last of all.

Knows how a file becomes durable before its name is there, that one process at a time writes, and that what is there
already may have rotted. Refuses to know where the bytes come from.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self, final

from api.porting import oci
from api.porting.errors import CannotWrite, NotThatKind, Unusable
from api.porting.folder import Folder
from api.v2.document import OCI_INDEX
from cas import Digest

_PART: Final = ".part"  # of a file on its way in; no digest ends so


@final
class Layout:
    """The folder, locked against others that write here."""

    def __init__(self, root: Path, most_list_bytes: int) -> None:
        """Open it, or make it.

        Raises:
            CannotWrite: the system refuses, somebody else writes here, or something else than a layout is here.
        """
        self._root, self._most_list_bytes = root, most_list_bytes
        self._whole: set[Digest] = set()  # written here, or read
        with _told(root):
            root.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._begin()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others write."""
        os.close(self._fd)

    def has(self, digest: Digest, size: int) -> bool:
        """Tell whether a blob is there, whole; one that was there before is read once, whatever its name says."""
        if digest not in self._whole and self._is_whole(digest, size):
            self._whole.add(digest)
        return digest in self._whole

    def write(self, digest: Digest, blocks: Iterable[bytes]) -> None:
        """Write a blob; whoever has these blocks raises at their end if they are not its bytes.

        Raises:
            CannotWrite: the system refuses.
        """
        self._write(oci.path_of(digest), blocks)
        self._whole.add(digest)

    def name(self, descriptors: Iterable[dict[str, Any]]) -> None:
        """Add to the list; whatever had one of these names before gives way.

        Raises:
            CannotWrite: the system refuses.
        """
        rows = {_key(each): each for each in [*self._listed(), *descriptors]}
        named = {each["digest"] for each in rows.values() if oci.name_of(each) is not None}
        kept = [each for each in rows.values() if oci.name_of(each) is not None or each.get("digest") not in named]
        content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": kept}
        self._write(oci.INDEX, [json.dumps(content, indent=2).encode()])

    def _is_whole(self, digest: Digest, size: int) -> bool:
        hashed = digest.hasher()
        try:
            with Folder(self._root) as folder, folder.open(oci.path_of(digest)) as file:
                if file.size != size:
                    return False
                for block in file.blocks():
                    hashed.update(block)
        except (NotThatKind, Unusable):
            return False
        return hashed.digest() == digest.raw

    def _begin(self) -> None:
        with _told(self._root):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CannotWrite(f"another export writes to {self._root}; wait until it is done") from None
            there = {path.name for path in self._root.iterdir()}
        if oci.LAYOUT not in there:
            if there - {"blobs", oci.LAYOUT + _PART}:
                raise CannotWrite(f"{self._root} is not empty and no OCI layout; name a new folder, or an empty one")
            self._write(oci.LAYOUT, [oci.LAYOUT_CONTENT])
        self._listed()  # a damaged one is said before hours of work

    def _listed(self) -> list[dict[str, Any]]:
        with Folder(self._root) as folder:
            try:
                return oci.listed(folder, self._most_list_bytes) if folder.has(oci.INDEX) else []
            except (NotThatKind, Unusable) as error:
                raise CannotWrite(f"{error}; name another folder") from None

    def _write(self, path: str, blocks: Iterable[bytes]) -> None:
        """Write a file that is durable before it has its name."""
        final_path = self._root / path
        part = final_path.with_name(final_path.name + _PART)
        with _told(final_path):
            final_path.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            _fill(fd, blocks, final_path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        with _told(final_path):
            part.replace(final_path)
            _sync_folder(final_path.parent)


def _fill(fd: int, blocks: Iterable[bytes], path: Path) -> None:
    file = open(fd, "wb")  # noqa: SIM115 - closing it writes what could not be written once more
    try:
        for block in blocks:  # what goes wrong with the blocks is not the folder's fault
            with _told(path):
                file.write(block)
        with _told(path):
            file.flush()
            os.fsync(fd)
    finally:
        with suppress(OSError):
            file.close()


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _key(descriptor: dict[str, Any]) -> tuple[str, str]:
    name = oci.name_of(descriptor)
    return ("digest", str(descriptor.get("digest"))) if name is None else ("name", name)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}; mend that and begin again") from None
