"""A store has one owner: who would write to it as anybody else is told so, and who looks leaves nothing in the way."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cas import Forbidden, NotOwner, Store, rebuild_index
from tests.support.engine import MIB, noise, opened, push, read
from tests.support.serving import StartServer, run_cas

IS_ROOT = os.geteuid() == 0
SERVICE = 12_345 if IS_ROOT else os.geteuid()  # the owner of the stores here; root can be the guest of anybody
OWNER = f"'#{SERVICE}'" if IS_ROOT else pwd.getpwuid(SERVICE).pw_name
GUEST = "import os; os.geteuid = lambda: 0; from tools.main import main; main()"

WRITING = [
    ("serve", "--bind", "127.0.0.1:0", "--workers", "1"),
    ("user", "add", "ann", "--password-stdin"),
    ("user", "rm", "ann"),
    ("grant", "ann", "some/thing", "pull"),
    ("repo", "set", "some/thing", "--public"),
    ("repo", "rm", "some/thing"),
    ("key", "rotate"),
    ("gc",),
    ("undelete", "some/thing"),
    ("fsck", "--rebuild-index", "--force"),
]
READING = [
    ("stats",),
    ("du",),
    ("fsck",),
    ("fsck", "--deep"),
    ("user", "list"),
    ("repo", "list"),
    ("undelete", "--list"),
]


def files(root: Path) -> dict[Path, tuple[int, int, bytes]]:
    """Everything in a store's folder: whose it is, and what is in it."""
    found = {}
    for path in (root, *root.rglob("*")):
        stat = path.stat()
        found[path] = (stat.st_uid, stat.st_gid, path.read_bytes() if path.is_file() else b"")
    return found


def run_as_guest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as root; where that cannot be, it only believes so, which is enough to be refused."""
    if IS_ROOT:
        return run_cas(*arguments)
    command = [sys.executable, "-c", GUEST, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    with opened(root) as store:
        push(store, "a", noise(3 * MIB))
    if IS_ROOT:
        for path in (root, *root.rglob("*")):
            os.chown(path, SERVICE, SERVICE)
    return root


@pytest.mark.parametrize("command", WRITING, ids=" ".join)
def test_root_does_not_write_to_the_store_of_a_service(root: Path, command: tuple[str, ...]) -> None:
    """At once, with what to type instead, and without a trace."""
    before = files(root)
    ended = run_as_guest(*command, "--root", root)
    assert (ended.returncode, ended.stdout) == (77, "")
    assert f"belongs to {OWNER}" in ended.stderr
    assert f"sudo -u {OWNER} cas" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert files(root) == before


def test_root_does_not_mend_the_store_of_a_service(root: Path) -> None:
    """A check's own code for what could not run."""
    before = files(root)
    ended = run_as_guest("fsck", "--repair", "--root", root)
    assert (ended.returncode, ended.stdout) == (8, "")
    assert f"sudo -u {OWNER} cas" in ended.stderr
    assert files(root) == before


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_root_looks_and_leaves_nothing_that_its_owner_could_not_open(root: Path, command: tuple[str, ...]) -> None:
    """Also where it has to make what is missing: folders, and the files by which processes know of each other."""
    for path in (root / "locks").iterdir():
        path.unlink()
    empty = next(path for path in (root / "packs").iterdir() if not any(path.iterdir()))
    for path in (root / "locks", empty):
        path.rmdir()
    (root / "index" / "lock.mdb").unlink()
    ended = run_cas(*command, "--root", root)
    assert (ended.returncode, ended.stderr) == (0, "")
    found = files(root)
    assert {root / "locks", empty, root / "index" / "lock.mdb"} <= found.keys()
    assert {user for user, _, _ in found.values()} == {SERVICE}


def test_root_makes_a_backup_of_the_store_of_a_service(root: Path, tmp_path: Path) -> None:
    """Which is root's own."""
    ended = run_cas("backup", tmp_path / "backup", "--root", root)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {user for user, _, _ in files(root).values()} == {SERVICE}
    assert {user for user, _, _ in files(tmp_path / "backup").values()} == {os.geteuid()}


def test_what_was_planted_in_a_store_is_not_given_away(root: Path, tmp_path: Path) -> None:
    """A link to a file of root's stays a link to a file of root's."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"root's own")
    planted = root / "locks" / "epochs"
    planted.unlink()
    planted.symlink_to(precious)
    run_cas("stats", "--root", root)
    assert precious.stat().st_uid == os.geteuid()


def test_anybody_else_is_told_whose_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a rebuild as well; reading goes on."""
    owner = (root / "store.json").stat().st_uid
    monkeypatch.setattr("cas.root.os.geteuid", lambda: owner + 1)
    for work in (Store.open, rebuild_index):
        with pytest.raises(NotOwner, match="sudo -u") as caught:
            work(root)
        assert f"chown -R '#{owner + 1}' {root}" in str(caught.value)
    with Store.open(root, reading=True) as store:
        assert store.stats().blobs == 1


def test_root_is_told_a_way_that_every_system_has(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minimal one has no sudo."""
    owner = (root / "store.json").stat().st_uid
    monkeypatch.setattr("cas.root.pwd.getpwuid", lambda number: SimpleNamespace(pw_name="cas" if number else "root"))
    monkeypatch.setattr("cas.root.os.geteuid", lambda: 0)
    assert owner
    with pytest.raises(NotOwner, match="runuser -u cas -- cas"):
        Store.open(root)


def test_an_empty_folder_is_nobodys_store_yet(server: StartServer, tmp_path: Path) -> None:
    """Whoever starts first makes it, whosever folder it is."""
    root = tmp_path / "new"
    root.mkdir()
    if IS_ROOT:
        os.chown(root, SERVICE, SERVICE)
    assert server(root).get("/v2/")[0] == 200


def test_a_pack_that_may_not_be_opened_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is missing: the system says no, and says it again next time; then it is served as ever."""
    with opened(tmp_path) as store:
        digest = push(store, "a", noise(3 * MIB))
    real = os.open

    def refusing(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith(".pack") and not flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, mode)

    with opened(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr("cas.disk.os.open", refusing)
            with pytest.raises(Forbidden, match="Permission denied") as caught:
                read(store, digest)
        assert "damaged" not in str(caught.value)
        assert "push" not in str(caught.value)
        assert read(store, digest) == noise(3 * MIB)
