"""`cas fsck --rebuild-index`: the packs are enough (I4)."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import struct
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cas import CHECKS
from tests.commands.test_stats import LAYER_BYTES, push, stats
from tests.support.engine import flip, noise
from tests.support.serving import CAS, StartServer, clean_environment, run_cas
from tests.wire.v2.pushing import Client, sha256

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
    assert sorted(line.split("; ")[1] for line in rest) == ["it concerns test layer-0", "it concerns test layer-1"]


def test_a_sound_store_is_clean_beside_a_live_server(server: StartServer, root: Path) -> None:
    """Exit code 0, at every depth, and the summary comes last."""
    server(root)
    for depth in ("--quick", "--data", "--deep"):
        ended = run_cas("fsck", depth, "--json", "--root", root)
        assert (ended.returncode, ended.stderr) == (0, "")
        told = json.loads(ended.stdout)["summary"]
        read, _ = told.pop("bytes_read"), told.pop("seconds")
        assert told == {"depth": depth[2:], "findings": 0, "checks": {}, "blobs": 0, "exit": 0}
        assert (read > 2 * LAYER_BYTES) == (depth != "--quick")


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
    assert (summary["summary"]["checks"], summary["summary"]["exit"]) == ({"chunks": 1}, 4)
    assert packs[-1].stem in finding["where"]


def test_a_quick_check_says_that_others_saw_damage(root: Path) -> None:
    """It reads no stored bytes, and exits 0 beside what rots: so it says where to look, until that is mended."""
    flip(max((root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size), 1000)
    told = "; 1 pack seen damaged before, or missing: cas fsck --data says what of\n"
    assert told not in run_cas("fsck", "--root", root).stdout
    assert run_cas("fsck", "--data", "--root", root).returncode == 4
    ended = run_cas("fsck", "--root", root)
    assert (ended.returncode, ended.stdout.endswith(told)) == (0, True)
    assert run_cas("fsck", "--repair", "--root", root).returncode == 1
    assert told not in run_cas("fsck", "--root", root).stdout


def test_repair_keeps_the_pack_and_a_push_heals_what_was_lost(server: StartServer, tmp_path: Path) -> None:
    """Findings name REPO:TAG; a lost layer answers 404 beside a live server, and is whole again after a push."""
    root, layer = tmp_path / "root", noise(3 << 20)
    running = server(root)
    with closing(Client(running.url)) as client:
        digest = push_image(client, layer)
        path = max((root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
        flip(path, 1 << 20)
        ended = run_cas("fsck", "--data", "--json", "--root", root)
        finding, _ = map(json.loads, ended.stdout.splitlines())
        assert (ended.returncode, finding["names"], finding["blobs"]) == (4, ["team/app:1.0"], [digest])
        said = run_cas("fsck", "--repair", "--dry-run", "--root", root)
        assert (said.returncode, "1 pack would be set aside" in said.stdout) == (4, True)
        assert f"; run cas fsck --root {root} --repair, then push the same content again\n" in said.stdout
        ended = run_cas("fsck", "--repair", "--json", "--root", root)
        assert ended.returncode == 1, ended.stdout
        remedy = json.loads(ended.stdout.splitlines()[0])["remedy"]  # what is left to do, now that it was repaired
        assert remedy.startswith("push the same content again, or bring it back from a backup: ")
        assert (root / "quarantine" / path.name).exists()
        assert [client.blob("team/app", digest, method).status_code for method in ("HEAD", "GET")] == [404, 404]
        push_image(client, layer)
        assert client.blob("team/app", digest).content == layer
    assert run_cas("fsck", "--deep", "--root", root).returncode == 0


def push_image(client: Client, layer: bytes) -> str:
    """Push `team/app:1.0` with one layer; return that layer's digest."""
    config, digest = b"{}", client.push("team/app", layer)
    kind = "application/vnd.oci.image"
    image = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", "size": len(config), "digest": sha256(config)},
        "layers": [{"mediaType": f"{kind}.layer.v1.tar", "size": len(layer), "digest": digest}],
    }
    client.push("team/app", config)
    sent = json.dumps(image).encode()
    answer = client.ask("PUT", "/v2/team/app/manifests/1.0", sent, Content_Type=f"{kind}.manifest.v1+json")
    assert answer.status_code == 201, answer.text
    return digest


def test_a_check_that_cannot_run_says_so(tmp_path: Path) -> None:
    """Exit code 8 where there is no store, 16 for flags that contradict each other."""
    assert run_cas("fsck", "--root", tmp_path / "none").returncode == 8
    assert run_cas("fsck", "--force", "--root", tmp_path).returncode == 16
    assert run_cas("fsck", "--nonsense").returncode == 16


@pytest.mark.parametrize(
    "flags",
    [
        ("--subset", "0/3"),
        ("--subset", "4/3"),
        ("--subset", "1"),
        ("--subset", "a/b"),
        ("--rate", "0"),
        ("--rate", "fast"),
        ("--dry-run",),
        ("--from", "elsewhere"),
        ("--repair", "--from", "elsewhere", "--dry-run"),
        ("--repair", "--subset", "1/2"),
        ("--rebuild-index", "--rate", "5"),
        ("--repair", "--rebuild-index"),
        ("--quick", "--deep"),
        ("--data", "--quick"),
    ],
)
def test_flags_that_mean_nothing_are_wrong_usage(root: Path, flags: tuple[str, ...]) -> None:
    """Exit code 16, a line that says why, and nothing done."""
    ended = run_cas("fsck", *flags, "--root", root)
    assert (ended.returncode, ended.stdout) == (16, "")
    assert ended.stderr


def test_a_round_of_subsets_reads_what_one_check_reads(root: Path) -> None:
    """Each says which part it was; rot is found in exactly one of them."""
    packs = sorted((root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
    flip(packs[-1], 1 << 20)
    codes, read = [], 0
    for part in ("1/3", "2/3", "3/3"):
        ended = run_cas("fsck", "--data", "--subset", part, "--json", "--root", root)
        summary = json.loads(ended.stdout.splitlines()[-1])["summary"]
        assert (summary["subset"], summary["exit"]) == (part, ended.returncode)
        codes.append(ended.returncode)
        read += summary["bytes_read"]
    assert sorted(codes) == [0, 0, 4]
    assert read >= 2 * LAYER_BYTES


def test_a_rate_is_kept(root: Path) -> None:
    """Not faster than it was told, whatever the disk could."""
    ended = run_cas("fsck", "--data", "--rate", "4", "--json", "--root", root)
    summary = json.loads(ended.stdout)["summary"]
    assert summary["bytes_read"] / summary["seconds"] <= 4.5e6


def test_a_bar_is_drawn_on_a_terminal_and_nowhere_else(root: Path) -> None:
    """On stderr, so that findings can be piped on; with --json not even there."""
    assert "checking" in on_a_terminal("fsck", "--deep", "--root", str(root))
    assert "checking" not in on_a_terminal("fsck", "--deep", "--json", "--root", str(root))
    ended = run_cas("fsck", "--deep", "--root", root)
    assert (ended.returncode, ended.stderr) == (0, "")


def on_a_terminal(*arguments: str) -> str:
    """Run a command whose stderr is a terminal; return what was written there."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [CAS, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, env=clean_environment()
    ) as process:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # how a terminal says that nobody is there any more
            while piece := os.read(ours, 4096):
                said += piece
        assert process.wait(60) == 0
    os.close(ours)
    return said.decode()


def test_the_table_of_checks_in_the_manual_is_the_one_in_the_code() -> None:
    """Each check with the invariant that it guards, in the same order."""
    manual = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    section = manual.partition("\n## cas fsck\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| (I\d+) \|", section, re.MULTILINE)
    assert dict(rows) == CHECKS
    assert [name for name, _ in rows] == list(CHECKS)


def test_a_manifest_that_is_gone_is_named_and_made_anew(root: Path) -> None:
    """Whoever serves the store is told the command; a check names it, a repair mends it, and then all is well."""
    before = (root / "store.json").read_bytes()
    (root / "store.json").unlink()
    for command in (("serve", "--bind", "127.0.0.1:0"), ("stats",), ("fsck", "--rebuild-index", "--force")):
        ended = run_cas(*command, "--root", root)
        assert ended.returncode == 66
        assert f"cas fsck --repair --root {root}" in ended.stderr
    line = f"manifest (I9): store.json: it is missing; run cas fsck --root {root} --repair, which makes it anew"
    for flags in ([], ["--repair", "--dry-run"]):
        ended = run_cas("fsck", *flags, "--root", root)
        assert (ended.returncode, ended.stderr) == (4, "")
        assert ended.stdout.startswith(line)
    ended = run_cas("fsck", "--repair", "--root", root)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith("manifest (I9): store.json: it is missing; mended\nrepair: 1 finding; ")
    assert (root / "store.json").read_bytes() == before
    assert run_cas("fsck", "--deep", "--root", root).returncode == 0


def test_a_manifest_that_nothing_proves_is_not_made(root: Path) -> None:
    """Neither index nor a pack's header is left: exit code 4, and what else would help."""
    (root / "store.json").write_bytes(b"{")
    shutil.rmtree(root / "index")
    for path in (root / "packs").rglob("*.pack"):
        flip(path, 20)
    ended = run_cas("fsck", "--repair", "--json", "--root", root)
    assert (ended.returncode, ended.stderr) == (4, "")
    told = json.loads(ended.stdout.splitlines()[0])
    assert told["check"] == "manifest"
    assert told["remedy"].endswith("restore store.json from a backup")
    assert (root / "store.json").read_bytes() == b"{"


def test_an_index_cut_short_is_a_finding_and_no_crash(root: Path) -> None:
    """Even where touching a page that is gone ends a process by a signal."""
    with (root / "index" / "data.mdb").open("r+b") as file:
        file.truncate(8192)
    ended = run_cas("fsck", "--json", "--root", root)
    assert ended.returncode == 4, ended.stderr
    assert json.loads(ended.stdout.splitlines()[0])["remedy"].endswith(
        f"cas fsck --root {root} --rebuild-index --force"
    )


def test_a_table_turned_round_by_one_bit_keeps_nobody_busy_for_ever(root: Path) -> None:
    """The order in which LMDB looks for keys is a flag in the file: whoever would go by it is told instead (I9)."""
    data = root / "index" / "data.mdb"
    entry = struct.pack("<HHHH", 48, 0, 2, len(b"blobs")) + b"blobs" + bytes(4)  # and the flags of the tree follow
    content = data.read_bytes()
    assert entry + bytes(2) in content
    data.write_bytes(content.replace(entry + bytes(2), entry + b"\2\0"))
    for flags in ([], ["--repair"]):
        ended = run_cas("fsck", *flags, "--root", root)
        assert ended.returncode == 4, ended.stderr
        assert ended.stdout.startswith("structure (I9): index: blobs: the flags of the tree are 0x2, and must be 0x0")
        assert "--rebuild-index --force" in ended.stdout
    for command in ("gc", "stats", "serve"):
        ended = run_cas(command, "--root", root)
        assert ended.returncode == 74, ended.stderr
        assert "--rebuild-index --force" in ended.stderr
    assert run_cas("fsck", "--rebuild-index", "--force", "--root", root).returncode == 0
    assert run_cas("fsck", "--root", root).returncode == 0
