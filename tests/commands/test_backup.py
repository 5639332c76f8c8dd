"""`cas backup` and `cas restore`: a copy made beside a live server, and a store made of it."""

# ruff: noqa: SLF001 - damage is made inside, not only from the front

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cas import Store
from tests.commands.test_stats import push
from tests.support.ending import cut_off_backup
from tests.support.engine import flip, packs_of
from tests.support.serving import StartServer, run_cas
from tools.main import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    push(tmp_path / "root", 1, 2)
    return tmp_path / "root"


def run(*arguments: str | Path) -> dict[str, Any]:
    ended = run_cas(*arguments, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def names(root: Path) -> dict[str, bytes]:
    with Store.open(root) as store:
        found = {}
        for name, record in store.scan("test"):
            with store.reader(record.holds[0]) as reader:
                found[name.path] = bytes(reader.read())
        return found


def test_a_live_server_is_backed_up_and_its_backup_restored_and_served(
    server: StartServer, root: Path, tmp_path: Path
) -> None:
    """Whole, and a second time nothing is copied."""
    running = server(root, workers=2)
    first = run("backup", tmp_path / "backup", "--root", root)
    assert first["copied_bytes"] == first["pack_bytes"] > 6 << 20
    assert first["damaged"] == []
    again = run("backup", tmp_path / "backup", "--root", root)
    assert again["copied_bytes"] < 64 << 10  # what the command itself and the server wrote of themselves
    assert running.stop() == 0
    assert running.log() == ""
    report = run("restore", tmp_path / "backup", "--root", tmp_path / "new")
    assert report["packs"] == again["packs"]
    assert names(tmp_path / "new") == names(root)
    restored = server(tmp_path / "new")
    assert restored.get("/v1/_ping")[0] == 200


def test_people_read_one_line(root: Path, tmp_path: Path) -> None:
    """What there is, and what had to be done; no bar where nobody watches."""
    ended = run_cas("backup", tmp_path / "backup", "--root", root)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"backup of {root} in {tmp_path / 'backup'}: ")
    ended = run_cas("restore", tmp_path / "backup", "--root", tmp_path / "new")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{tmp_path / 'new'} restored from {tmp_path / 'backup'}: ")


def test_rot_is_told_by_the_exit_code(root: Path, tmp_path: Path) -> None:
    """Copied all the same, by either command."""
    flip(max(packs_of(root), key=lambda path: path.stat().st_size), 5000)
    ended = run_cas("backup", tmp_path / "backup", "--root", root)
    assert ended.returncode == 1
    assert "\ndamaged: pack " in ended.stdout
    ended = run_cas("restore", tmp_path / "backup", "--root", tmp_path / "new", "--json")
    assert ended.returncode == 1
    assert len(json.loads(ended.stdout)["damaged"]) == 1


def test_folders_that_hold_something_else_are_refused(root: Path, tmp_path: Path) -> None:
    """With the reason, and untouched."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments in (("backup", tmp_path / "full"), ("backup", root / "inside"), ("restore", tmp_path)):
        ended = run_cas(*arguments, "--root", root)
        assert (ended.returncode, ended.stdout) in {(73, ""), (66, "")}
        assert ended.stderr.startswith("cas: ")
    run("backup", tmp_path / "backup", "--root", root)
    ended = run_cas("restore", tmp_path / "backup", "--root", tmp_path / "full")
    assert ended.returncode == 73
    assert "empty or new folder" in ended.stderr
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_a_restore_that_was_ended_while_it_is_checked_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is damaged is told by the call that gets done; one more says that there is nothing to do."""

    class Ends(BaseException):
        """The process is killed here."""

    def end(*_: object) -> None:
        raise Ends

    run("backup", tmp_path / "backup", "--root", root)
    arguments = ["restore", str(tmp_path / "backup"), "--root", str(tmp_path / "new")]
    with monkeypatch.context() as patched:
        patched.setattr(Store, "check", end)
        with pytest.raises(Ends):
            CliRunner().invoke(main, arguments)
    assert (tmp_path / "new" / "store.json").exists()
    ended = run_cas(*arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert names(tmp_path / "new") == names(root)
    assert not (tmp_path / "new" / "backup.json").exists()
    ended = run_cas(*arguments)
    assert ended.returncode == 73
    assert "is the store that this backup is of, and whole" in ended.stderr


def test_a_restored_store_is_checked(root: Path, tmp_path: Path) -> None:
    """What is amiss in the index of the backup, though every row can be read, is named; the rest is there."""
    with Store.open(root) as store:
        recipe = store._parts.index.read(lambda view: view.recipes_after(0, 1))[0]
        store._parts.index.write(lambda edit: edit.delete_recipe(recipe))
    ended = run_cas("restore", root, "--root", tmp_path / "new")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert [line.startswith("damaged: ") for line in ended.stdout.splitlines()] == [False, True]
    with Store.open(tmp_path / "new") as store:
        assert len(list(store.check())) == 1


def test_a_later_backup_is_not_overwritten_by_a_store_that_was_restored(root: Path, tmp_path: Path) -> None:
    """However much was pushed to it since: the exit code says so, and what to do."""
    run("backup", tmp_path / "first", "--root", root)
    push(root, 3)
    run("backup", tmp_path / "second", "--root", root)
    kept = names(tmp_path / "second")
    run("restore", tmp_path / "first", "--root", tmp_path / "new")
    push(tmp_path / "new", 4, 5, 6)
    ended = run_cas("backup", tmp_path / "second", "--root", tmp_path / "new")
    assert (ended.returncode, ended.stdout) == (73, "")
    assert f"{tmp_path / 'second'} holds a state that {tmp_path / 'new'} never had" in ended.stderr
    assert "choose another folder" in ended.stderr
    assert names(tmp_path / "second") == kept
    run("backup", tmp_path / "first", "--root", tmp_path / "new")


def test_a_backup_that_was_cut_off_can_be_looked_at(root: Path, tmp_path: Path) -> None:
    """By every command that only looks; it is a backup as before, and the next one goes on."""
    run("backup", tmp_path / "backup", "--root", root)
    push(root, 3)
    with Store.open(root) as store:
        cut_off_backup(store, tmp_path / "backup")
    for command in (["stats"], ["du"], ["fsck", "--data"], ["user", "list"]):
        assert run_cas(*command, "--root", tmp_path / "backup").stderr == ""
    run("backup", tmp_path / "backup", "--root", root)
    assert names(tmp_path / "backup") == names(root)


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
def test_a_backup_that_was_cut_off_is_not_mended(root: Path, tmp_path: Path, *, is_first: bool) -> None:
    """Half a copy would be a store of its own then, or pass for a whole one; the next backup goes on, as it says."""
    backup = tmp_path / "backup"
    if not is_first:
        run("backup", backup, "--root", root)
        push(root, 3)
    with Store.open(root) as store:
        cut_off_backup(store, backup)
    before = {path: path.read_bytes() for path in backup.rglob("*") if path.suffix != ".mdb" and path.is_file()}
    for flags in ((), ("--dry-run",)):  # which foretells it
        ended = run_cas("fsck", "--repair", *flags, "--root", backup)
        assert ended.returncode == (4 if is_first else 8)
        assert "a cas backup into" in ended.stdout + ended.stderr
        assert "was cut off" in ended.stdout + ended.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert (backup / "store.json").exists() is not is_first
    run("backup", backup, "--root", root)
    assert names(backup) == names(root)


def test_a_backup_that_was_cut_off_and_became_a_store_is_mended(root: Path, tmp_path: Path) -> None:
    """By its first change; what was half there counts no more."""
    run("backup", tmp_path / "backup", "--root", root)
    push(root, 3)
    with Store.open(root) as store:
        cut_off_backup(store, tmp_path / "backup")
    push(tmp_path / "backup", 4)
    assert run_cas("gc", "--root", tmp_path / "backup").returncode == 1  # which sets that aside
    assert run_cas("fsck", "--repair", "--root", tmp_path / "backup").returncode == 0


def test_a_backup_that_is_whole_may_be_mended(root: Path, tmp_path: Path) -> None:
    """Also the first one, and also where `store.json` is what it lost."""
    run("backup", tmp_path / "backup", "--root", root)
    (tmp_path / "backup" / "store.json").unlink()
    assert run_cas("fsck", "--repair", "--root", tmp_path / "backup").returncode == 1
    assert run_cas("fsck", "--repair", "--root", tmp_path / "backup").returncode == 0
    run("backup", tmp_path / "backup", "--root", root)


def test_what_a_check_of_a_backup_finds_the_next_backup_mends(root: Path, tmp_path: Path) -> None:
    """So the check says, and not what would make a store of its own of it."""
    run("backup", tmp_path / "backup", "--root", root)
    flip(max(packs_of(tmp_path / "backup"), key=lambda path: path.stat().st_size), 5000)
    ended = run_cas("fsck", "--data", "--root", tmp_path / "backup")
    assert ended.returncode == 4
    assert "checksum; this is a backup, and the next cas backup to this folder mends it" in ended.stdout
    assert run("backup", tmp_path / "backup", "--root", root)["copied_bytes"]
    assert run_cas("fsck", "--data", "--root", tmp_path / "backup").returncode == 0
