"""A disk without a byte to spare: one sentence, never a signal, and nothing that is called damage (I9)."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from cas import NoSpace, Store, inspect_index, rebuild_index, slots
from tests.support.engine import MIB, SMALL, noise, opened, push
from tests.support.processes import can_mount, run_python
from tests.support.serving import run_cas
from tools import exits
from tools.main import main

LOCK = Path("index/lock.mdb")
DISK = 8 * MIB


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with opened(tmp_path / "root") as store:
        push(store, "a", noise(MIB))
    return tmp_path / "root"


def fill(place: Path) -> None:
    with (place / "pad").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    assert os.statvfs(place).f_bfree == 0


def without_room(lock: str) -> None:
    """Run in a mount namespace of its own: the commands on a full disk, with a store that was copied there."""
    source, place = map(Path, sys.argv[1:])
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", place], check=True)
    root = Path(shutil.copytree(source, place / "root"))
    (root / LOCK).unlink(missing_ok=True)
    if lock == "sparse":
        (root / LOCK).touch()
        os.truncate(root / LOCK, 262272)
    fill(place)
    for command, code in ((["stats"], 73), (["serve", "--bind", "127.0.0.1:0"], 73), (["fsck"], 8), (["gc"], 73)):
        ended = run_cas(*command, "--root", root)
        assert (ended.returncode, ended.stdout) == (code, ""), (command, ended)
        assert ended.stderr.startswith("cas: the disk is full"), ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr
    (place / "pad").unlink()
    assert run_cas("fsck", "--root", root).returncode == 0
    fill(place)
    ended = run_cas("stats", "--root", root)  # whoever opened it once left the file whole
    assert ended.returncode == 0, ended
    ended = run_cas("fsck", "--rebuild-index", "--force", "--root", root)
    assert ended.returncode == 73, ended
    assert ended.stderr.startswith("cas: the disk is full"), ended.stderr
    assert ended.stderr.endswith("; the index that is there was left as it was\n"), ended.stderr
    assert run_cas("stats", "--root", root).returncode == 0
    assert not list(root.glob("index.*"))
    (place / "pad").unlink()
    assert run_cas("fsck", "--rebuild-index", "--force", "--root", root).returncode == 0


def refuse_with(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the filesystem set nothing aside."""

    def refuse(*_: int) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(slots, "_fallocate", refuse)


@pytest.mark.parametrize("lock", ["missing", "sparse"])
def test_no_command_dies_for_want_of_a_block(
    lock: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the file of reader slots was left out of a copy or holes were made in it; with room, all is well.

    On a real small filesystem, where the kernel lets us mount one in a namespace of our own; else the engine alone.
    """
    if can_mount():
        (tmp_path / "disk").mkdir()
        program = f"from tests.commands.test_no_room import without_room; without_room({lock!r})"
        run_python(program, root, tmp_path / "disk", mounts=True)
    else:
        refuse_with(errno.ENOSPC, monkeypatch)
        for attempt in (Store.open, inspect_index, partial(rebuild_index, force=True)):
            with pytest.raises(NoSpace):
                attempt(root, SMALL)


def test_the_file_of_slots_is_whole_from_the_first_opening_on(root: Path) -> None:
    """As long as LMDB makes it, which others may have mapped; a copy with holes is filled."""
    size = (root / LOCK).stat().st_size
    for _ in range(2):
        assert (root / LOCK).stat().st_blocks * 512 >= size
        (root / LOCK).unlink()
        (root / LOCK).touch()
        os.truncate(root / LOCK, size)
        with opened(root):
            assert (root / LOCK).stat().st_size == size


def test_a_filesystem_that_sets_nothing_aside_is_asked_for_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is all that can be done there."""
    refuse_with(errno.EOPNOTSUPP, monkeypatch)
    slots.allocate(str(tmp_path), 64)
    assert (tmp_path / "lock.mdb").stat().st_size == 0
    free = os.statvfs(tmp_path)
    with pytest.raises(NoSpace, match="free some space"):
        slots.allocate(str(tmp_path), free.f_bavail * free.f_frsize)


def test_a_filesystem_that_never_writes_in_place_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Btrfs would want new room for each write to the file of slots, and kill for the lack of it; a refusal is none."""
    asked: list[tuple[int, int]] = []

    def ioctl(fd: int, number: int, value: bytes) -> bytes:
        asked.append((os.fstat(fd).st_size + os.fstat(fd).st_blocks, int.from_bytes(value, sys.byteorder)))
        if len(asked) > 2:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return (0x10).to_bytes(len(value), sys.byteorder)  # flags that it has already

    monkeypatch.setattr(slots, "fcntl", SimpleNamespace(ioctl=ioctl))
    slots.allocate(str(tmp_path), 64)
    assert asked == [(0, 0), (0, 0x800010)]  # of a file that has blocks it would not be heard
    os.truncate(tmp_path / "lock.mdb", 4096)
    slots.allocate(str(tmp_path), 64)
    assert len(asked) == 2
    os.truncate(tmp_path / "lock.mdb", 0)
    slots.allocate(str(tmp_path), 64)
    assert len(asked) == 3


@pytest.mark.parametrize(("free", "code"), [(0, exits.COULD_NOT_RUN), (1 << 30, exits.UNMENDED)])
def test_a_signal_on_a_full_disk_is_not_called_damage(
    free: int, code: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is mapped and gets no room ends a process as one that is gone does."""
    monkeypatch.setattr("tools.fsck._apart", lambda _: -signal.SIGBUS)
    usage = shutil.disk_usage(root)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    ended = CliRunner().invoke(main, ["fsck", "--root", str(root)])
    assert ended.exit_code == code
    assert ended.output.startswith("cas: the disk is full" if not free else "rows (I9)")
