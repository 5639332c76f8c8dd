"""Real trees as image layers: tars of this machine's own files, and a second version of them."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import tarfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
SECOND_VERSION_S = 86_400  # every file of the second version is a day younger


def files(roots: list[Path], limit_bytes: int) -> list[tuple[Path, int]]:
    """Return regular files under `roots`, in order, until they add up to `limit_bytes`."""
    found, total = [], 0
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
                    continue
                found.append((path, path.stat().st_size))
                total += found[-1][1]
                if total >= limit_bytes:
                    return found
    return found


def layers(found: list[tuple[Path, int]], count: int, into: Path, *, version: int, changed: float = 0.03) -> list[Path]:
    """Write `count` tars of about equal size; the second version edits a share of the files and renews every mtime."""
    share = sum(size for _, size in found) / count
    paths = [into / f"v{version}-{number}.tar" for number in range(count)]
    dice, done, left = random.Random(version), 0, deque(found)
    for at, layer in enumerate(paths, 1):
        with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as archive:
            while left and (done < share * at or at == count):
                path, size = left.popleft()
                edit = version > 1 and dice.random() < changed
                _add(archive, path, edit=edit, younger_s=SECOND_VERSION_S * (version - 1))
                done += size
    return paths


def _add(archive: tarfile.TarFile, path: Path, *, edit: bool, younger_s: int) -> None:
    member = archive.gettarinfo(path, str(path).lstrip("/"))
    member.mtime += younger_s
    member.type, member.linkname = tarfile.REGTYPE, ""  # the first link may lie in another layer
    data = path.read_bytes()
    if edit:
        middle = len(data) // 2
        data = data[:middle] + b"# edited in the second version\n" + data[middle:]
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def gzipped(paths: list[Path]) -> Iterator[Path]:
    """Write each tar's gzip beside it, as engines send layers."""
    for path in paths:
        packed = path.with_suffix(".tar.gz")
        with path.open("rb") as raw, gzip.open(packed, "wb", compresslevel=1) as stream:
            shutil.copyfileobj(raw, stream, MIB)
        yield packed
