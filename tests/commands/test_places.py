"""Places that the system keeps from us, and output that nobody takes: one sentence and the code that fits."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.porting import writing
from api.porting.errors import CannotWrite
from tests.support.engine import MIB, noise, opened, push
from tests.support.serving import CAS, StartServer, clean_environment, run_cas, without_privileges

SERVICE = 12_345  # nobody's number


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with opened(tmp_path / "root") as store:
        push(store, "a", noise(2 * MIB))
    return tmp_path / "root"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody may enter, with a copy of nothing in it."""
    folder = tmp_path / "locked"
    (folder / "x").mkdir(parents=True)
    folder.chmod(0o000)
    yield folder
    folder.chmod(0o755)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder that may be read and not be written."""
    folder = tmp_path / "read"
    folder.mkdir()
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


def refused(*command: str | Path, code: int) -> str:
    """Run a command that file permissions bind; return the one line it says."""
    ended = run_cas(*command, before=without_privileges())
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert ended.stderr.startswith("cas: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def test_a_backup_goes_nowhere_one_may_not_write(root: Path, locked: Path, full: Path) -> None:
    """Whether the folder may be seen or not."""
    for place in (locked / "x", full / "x"):
        assert str(place) in refused("backup", place, "--root", root, code=77)


def test_a_restore_needs_both_places(root: Path, locked: Path, full: Path, tmp_path: Path) -> None:
    """Where it reads, and where it writes."""
    assert str(locked) in refused("restore", locked / "x", "--root", tmp_path / "new", code=77)
    for place in (locked / "x", full / "x"):
        assert str(place) in refused("restore", root, "--root", place, code=77)


@pytest.mark.parametrize("command", ["stats", "gc", "serve", "user list", "backup copy", "export oci a/b copy"])
def test_a_store_of_somebody_else_says_whose_it_is_and_what_to_do(root: Path, command: str) -> None:
    """Every command, also those that only look; not that the flag has a value that is none."""
    whose, us = pwd.getpwuid(os.geteuid()).pw_name, os.geteuid()
    root.chmod(0o000)
    try:
        if us == 0:
            os.chown(root, SERVICE, SERVICE)
            whose = f"'#{SERVICE}'"
        told = refused(*command.split(), "--root", root, code=77)
    finally:
        os.chown(root, us, -1)
        root.chmod(0o755)
    assert f"{root} belongs to {whose}" in told
    assert (f"sudo -u {whose} cas ..." if us == 0 else "chmod u+rwx") in told


def test_a_backup_that_is_out_of_reach_is_told_as_such(locked: Path, tmp_path: Path) -> None:
    """By its name and with the way out, and not as a wrong value."""
    told = refused("restore", locked, "--root", tmp_path / "new", code=77)
    assert str(locked) in told
    assert "Permission denied; mend owner or permissions, or run this as somebody who may" in told


def test_a_restore_from_a_folder_that_is_not_there_says_just_that(tmp_path: Path) -> None:
    """Rather than what a backup in it would have to be like."""
    told = refused("restore", tmp_path / "none", "--root", tmp_path / "new", code=66)
    assert told == f"cas: {tmp_path / 'none'} does not exist; name the folder that a cas backup went to\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("place", ["", "index/data.mdb"])
def test_a_backup_of_somebody_elses_says_whose_it_is_and_how_it_is_handed_over(
    root: Path, tmp_path: Path, place: str
) -> None:
    """As root's own is, of the store of a service, the whole of it or the last time; not that it be read by another."""
    backup, us = tmp_path / "backup", os.geteuid()
    assert run_cas("backup", backup, "--root", root).returncode == 0
    (backup / place).chmod(0o000)
    if us == 0:
        os.chown(backup / place, SERVICE, SERVICE)
    try:
        told = refused("fsck", "--repair", "--from", backup, "--root", root, code=8)
    finally:
        os.chown(backup / place, us, -1)
        (backup / place).chmod(0o755)
    ours = pwd.getpwuid(us).pw_name
    if us == 0:
        assert f"the backup in {backup} belongs to '#{SERVICE}', and root may not use it" in told
        assert f"let root hand it over: chown -R root {backup}\n" in told
    else:
        assert f"belongs to {ours}, and {ours} may not" in told or "mend owner, permissions or mount" in told


def test_a_check_of_a_folder_out_of_reach_could_not_run(locked: Path) -> None:
    """Which has a code of its own."""
    assert str(locked) in refused("fsck", "--root", locked / "x", code=8)


@pytest.mark.parametrize(
    ("folder", "mode"),
    [("packs", 0o000), ("locks", 0o555), ("index", 0o000), ("index/data.mdb", 0o440), ("index/lock.mdb", 0o440)],
)
def test_a_store_with_a_place_out_of_reach_says_which(root: Path, folder: str, mode: int) -> None:
    """To whoever would serve it, and to whoever checks it."""
    (root / folder).chmod(mode)
    try:
        told = refused("serve", "--bind", "127.0.0.1:0", "--root", root, code=77)
        assert folder.partition("/")[0] in told
        assert "Permission denied" in told
        assert "mend" in told
        refused("fsck", "--root", root, code=8)
    finally:
        (root / folder).chmod(0o755)


def test_an_export_to_a_full_disk_is_told_as_such() -> None:
    """Also what the buffers of a file still hold is not written again, and told of by a traceback."""
    for size in (10, 1 << 20):
        with pytest.raises(CannotWrite, match="No space left on device"):
            writing._fill(os.open("/dev/full", os.O_WRONLY), [bytes(size)], Path("blob"))  # noqa: SLF001


def run_into(stdout: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command with its standard output redirected as a shell does it."""
    line = ["sh", "-c", f'exec "$0" "$@" {stdout}', CAS, *map(str, command)]
    return subprocess.run(
        line, env=clean_environment(), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=False
    )


@pytest.mark.parametrize("command", ["stats", "fsck", "du", "repo list"])
def test_output_that_cannot_be_written_is_an_error(root: Path, command: str) -> None:
    """A script that keeps the output must not take half of it for all."""
    if command == "repo list":
        assert run_into(">/dev/full", *command.split(), "--root", root).returncode == 0  # there is nothing to list
        return
    ended = run_into(">/dev/full", command, "--root", root)
    assert ended.returncode == (8 if command == "fsck" else 74)
    assert ended.stderr == "cas: standard output cannot be written: No space left on device\n"


def test_help_that_cannot_be_written_is_an_error() -> None:
    """Before there is any command."""
    for command in (["--help"], ["serve", "--help"], ["--version"]):
        ended = run_into(">/dev/full", *command)
        assert ended.returncode == 74
        assert ended.stderr == "cas: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("command", ["stats", "fsck"])
def test_without_a_standard_output_nothing_is_said(root: Path, command: str) -> None:
    """And no file of the store gets its number."""
    before = {path: path.read_bytes() for path in root.rglob("*.pack")}
    ended = run_into(">&-", command, "--root", root)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {path: path.read_bytes() for path in root.rglob("*.pack")} == before


@pytest.mark.parametrize(("command", "code"), [("stats", 1), ("fsck", 8)])
def test_who_has_read_enough_hears_no_complaint(root: Path, command: str, code: int) -> None:
    """As of other programs in a pipe before `head`."""
    read, write = os.pipe()
    os.close(read)
    try:
        ended = subprocess.run(
            [CAS, command, "--root", str(root)],
            env=clean_environment(),
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(write)
    assert (ended.returncode, ended.stderr) == (code, b"")


def test_a_name_that_is_no_text_is_a_name(server: StartServer, tmp_path: Path) -> None:
    """Linux takes any bytes for a file's name, and so do a root and a backup."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with opened(root) as store:
        push(store, "a", noise(MIB))
    for command in (("stats",), ("backup", Path(f"{root}.copy")), ("fsck",), ("du", "--json")):
        ended = subprocess.run(
            [CAS, *map(str, command), "--root", str(root)], env=clean_environment(), capture_output=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, b"")
    running = server(root)
    assert running.get("/v2/")[0] == 200
    assert running.stop() == 0
