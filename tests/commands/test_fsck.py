"""`cas fsck --rebuild-index`: the packs are enough (I4)."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from cas import CHECKS
from tests.commands.test_stats import push, stats
from tests.support.engine import flip
from tests.support.serving import StartServer, run_cas

COUNTED = ("blobs", "chunks", "names", "logical_bytes")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    push(tmp_path / "root", 1, 2)
    return tmp_path / "root"


def test_a_lost_index_comes_back_from_the_packs(root: Path) -> None:
    """Everything is counted as before, and the summary says what came back."""
    before = stats(root)
    shutil.rmtree(root / "index")
    ended = run_cas("fsck", "--rebuild-index", "--root", root)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("index rebuilt from ")
    assert ended.stdout.endswith(f"{before['blobs']} blobs, {before['names']} names\n")
    after = stats(root)
    assert {key: after[key] for key in COUNTED} == {key: before[key] for key in COUNTED}


def test_an_index_that_is_there_is_not_touched(root: Path) -> None:
    """A mistyped command destroys nothing."""
    before = (root / "index" / "data.mdb").read_bytes()
    ended = run_cas("fsck", "--rebuild-index", "--root", root)
    assert ended.returncode == 73
    assert "is there already" in ended.stderr
    assert (root / "index" / "data.mdb").read_bytes() == before


def test_force_moves_the_index_aside_and_keeps_it(root: Path) -> None:
    """Twice, under two names: what was set aside is never overwritten."""
    before = (root / "index" / "data.mdb").read_bytes()
    for _ in range(2):
        ended = run_cas("fsck", "--rebuild-index", "--force", "--root", root)
        assert (ended.returncode, ended.stderr) == (0, "")
    assert (root / "index.old-1" / "data.mdb").read_bytes() == before
    assert (root / "index.old-2" / "data.mdb").exists()
    assert stats(root)["blobs"] == 2


@pytest.mark.parametrize("flags", [[], ["--force"]])
def test_a_store_in_use_is_left_alone(server: StartServer, root: Path, flags: list[str]) -> None:
    """The server goes on with the index it has."""
    running = server(root)
    ended = run_cas("fsck", "--rebuild-index", *flags, "--root", root)
    assert ended.returncode == 75
    assert "stop the server first" in ended.stderr
    assert not (root / "index.old-1").exists()
    assert running.get("/v1/_ping")[0] == 200


def test_damage_is_named_and_the_rest_comes_back(root: Path) -> None:
    """I9: exit code 1, and a line for each blob that could not be read."""
    before = stats(root)
    packs = sorted((root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
    packs[-1].chmod(0o644)  # packs are read-only once written
    with packs[-1].open("r+b") as pack:
        pack.seek(0)
        pack.write(b"\0" * 64)
    shutil.rmtree(root / "index")
    ended = run_cas("fsck", "--rebuild-index", "--root", root)
    assert ended.returncode == 1
    summary, *rest = ended.stdout.splitlines()
    assert f"{before['names']} names" in summary
    assert len(rest) == before["blobs"]
    assert all(line.startswith("damaged: blob sha256:") for line in rest)


def test_a_sound_store_is_clean_beside_a_live_server(server: StartServer, root: Path) -> None:
    """Exit code 0, at every depth, and the summary comes last."""
    server(root)
    for depth in ("--quick", "--data", "--deep"):
        ended = run_cas("fsck", depth, "--json", "--root", root)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert json.loads(ended.stdout) == {"summary": {"depth": depth[2:], "findings": 0, "blobs": 0}}


def test_rot_is_named_with_the_blob_and_its_name(root: Path) -> None:
    """Exit code 4; a quick check does not read the bytes, the others do."""
    packs = sorted((root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
    flip(packs[-1], 1 << 20)
    assert run_cas("fsck", "--quick", "--root", root).returncode == 0
    ended = run_cas("fsck", "--data", "--json", "--root", root)
    assert ended.returncode == 4
    finding, summary = map(json.loads, ended.stdout.splitlines())
    assert (finding["check"], finding["invariant"], finding["names"]) == ("chunks", "I3", ["test layer-0"])
    assert len(finding["blobs"]) == summary["summary"]["findings"] == 1
    assert packs[-1].stem in finding["where"]


def test_a_check_that_cannot_run_says_so(tmp_path: Path) -> None:
    """Exit code 8 where there is no store, 16 for flags that contradict each other."""
    assert run_cas("fsck", "--root", tmp_path / "none").returncode == 8
    assert run_cas("fsck", "--force", "--root", tmp_path).returncode == 16


def test_the_table_of_checks_in_the_manual_is_the_one_in_the_code() -> None:
    """Each check with the invariant that it guards, in the same order."""
    manual = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    section = manual.partition("\n## cas fsck\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| (I\d+) \|", section, re.MULTILINE)
    assert dict(rows) == CHECKS
    assert [name for name, _ in rows] == list(CHECKS)


def test_an_index_cut_short_is_a_finding_and_no_crash(root: Path) -> None:
    """Even where touching a page that is gone ends a process by a signal."""
    with (root / "index" / "data.mdb").open("r+b") as file:
        file.truncate(8192)
    ended = run_cas("fsck", "--json", "--root", root)
    assert ended.returncode == 4, ended.stderr
    assert json.loads(ended.stdout.splitlines()[0])["remedy"].endswith("cas fsck --rebuild-index --force")
