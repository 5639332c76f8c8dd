"""What engine tests share: small settings, samples of every kind, and a push in three lines."""

from __future__ import annotations

import io
import random
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cas import Digest, EngineSettings, FileRange, Name, Names, Record, Staged, Store
from cas.disk import Disk
from cas.errors import DiskFailed
from cas.records import Role
from cas.scan import scan_pack

KIB, MIB = 1 << 10, 1 << 20
_WITHIN_S = 60

# Every limit is met after a few hundred kilobytes, so that small samples go through every path.
SMALL = EngineSettings(
    inline_bytes=1024,
    run_bytes=96 * KIB,
    direct_bytes=192 * KIB,
    segment_chunks=4,
    pack_bytes=400 * KIB,
    map_bytes=256 * KIB,
    max_readers=64,
    reserve_bytes=0,
    open_packs=3,
)


class HeldDisk(Disk):
    """A disk that, once told to, keeps whoever syncs next waiting, and may fail them."""

    def __init__(self) -> None:
        super().__init__()
        self.holds = self.fails = False
        self.reached, self.gate = threading.Event(), threading.Event()

    def sync(self, fd: int) -> None:
        if self.holds:
            self.holds = False
            self.reached.set()
            assert self.gate.wait(_WITHIN_S), "it was to be let go by now"
            if self.fails:
                raise DiskFailed("the disk failed")
        super().sync(fd)


def wait_for_jobs(store: Store, count: int) -> None:
    """Wait until so many jobs wait behind the one that is being committed."""
    committer, deadline = store._parts.committer, time.monotonic() + _WITHIN_S
    with committer._wake:
        while len(committer._waiting) != count:
            assert time.monotonic() < deadline
            committer._wake.wait(0.01)  # nobody tells us


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def prose(size: int, seed: int = 0) -> bytes:
    """Bytes that compress well and repeat nowhere."""
    dice = random.Random(seed)
    return b"".join(b"%08x is line %d\n" % (dice.getrandbits(32), n) for n in range(size // 18 + 1))[:size]


def tar_of(files: dict[str, bytes], *, mtime: int = 0) -> bytes:
    """A plain tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mtime = len(content), mtime
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def stage(store: Store, data: bytes, step: int = 64 * KIB) -> Staged:
    """Upload without naming."""
    with store.upload() as upload:
        for start in range(0, len(data), step):
            upload.write(data[start : start + step])
        return upload.finish(Digest.of(data))


def push(store: Store, path: str, data: bytes, step: int = 64 * KIB) -> Digest:
    """Upload and name in one change; acknowledged on return."""
    staged = stage(store, data, step)

    def edit(names: Names) -> None:
        names.keep(staged)
        names.put(Name("thing", path), Record(path.encode(), (staged.digest,), staged.size))

    store.change(edit)
    return staged.digest


def read(store: Store, digest: Digest, start: int = 0, stop: int | None = None) -> bytes:
    """A blob's bytes, or a range of them."""
    with store.reader(digest) as reader:
        return reader.read(start, stop)


def file_ranges(store: Store, digest: Digest) -> list[FileRange]:
    """The pieces of a blob that `sendfile` could serve."""
    with store.reader(digest) as reader:
        return [piece for piece in reader.pieces() if isinstance(piece, FileRange)]


def packs_of(root: Path, role: Role | None = None) -> list[Path]:
    """Every pack file, or those of one role, in order of their names."""
    found = sorted((root / "packs").rglob("*.pack"))
    return found if role is None else [path for path in found if _role(path) is role]


def _role(path: Path) -> Role | None:
    header = scan_pack(1, path).header
    return None if header is None else header.role


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file, as a bad disk would."""
    mode = path.stat().st_mode
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))
    path.chmod(mode)


@contextmanager
def opened(root: Path, settings: EngineSettings = SMALL) -> Iterator[Store]:
    """A store at `root`, made if it is not there."""
    with Store.open(root, settings, create=True) as store:
        yield store
