"""`cas stats`: the numbers are true, and can be had at any time."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from cas import Name, Record, Store
from tests.support.serving import StartServer, run_cas

KEYS = {"blobs", "chunks", "packs", "names", "logical_bytes", "stored_bytes", "pack_bytes", "index_bytes"}
KEYS |= {"lost", "doubted", "checked", "unchecked_packs"}
LAYER_BYTES = 3 << 20


def push(root: Path, *seeds: int) -> None:
    """Store one layer a seed, each under a name of its own."""
    with Store.open(root, create=True) as store:
        for number, seed in enumerate(seeds):
            with store.upload() as upload:
                upload.write(random.Random(seed).randbytes(LAYER_BYTES))
                staged = upload.finish()
                name = Name("test", f"layer-{number}")

                def keep(names: Any, staged: Any = staged, name: Name = name) -> None:
                    names.keep(staged)
                    names.put(name, Record(b"", (staged.digest,), staged.size))

                store.change(keep)


def stats(root: Path) -> dict[str, Any]:
    ended = run_cas("stats", "--json", "--root", root)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def on_disk(root: Path) -> int:
    files = [*(root / "packs").rglob("*"), *(root / "index").rglob("*")]
    return sum(path.stat().st_size for path in files if path.is_file())


def test_every_promised_number_is_there(tmp_path: Path) -> None:
    """Scripts rely on the names."""
    push(tmp_path / "root", 1)
    found = stats(tmp_path / "root")
    assert KEYS | {"dedup_ratio"} == set(found)
    assert found["blobs"] == found["names"] == 1
    assert found["logical_bytes"] == LAYER_BYTES


def test_stored_bytes_is_what_lies_on_the_disk(tmp_path: Path) -> None:
    """Packs and index together, within -20 % and +10 % of the files' sizes."""
    push(tmp_path / "root", 1, 2)
    found = stats(tmp_path / "root")
    assert 0.8 * on_disk(tmp_path / "root") <= found["stored_bytes"] <= 1.1 * on_disk(tmp_path / "root")
    assert found["stored_bytes"] == found["pack_bytes"] + found["index_bytes"]


def test_the_ratio_is_what_was_pushed_for_what_is_stored(tmp_path: Path) -> None:
    """The same layer under three names is pushed three times and stored once."""
    push(tmp_path / "root", 1, 1, 1)
    found = stats(tmp_path / "root")
    assert found["logical_bytes"] == 3 * LAYER_BYTES
    assert found["dedup_ratio"] == round(found["logical_bytes"] / found["stored_bytes"], 4)
    assert found["dedup_ratio"] > 2


def test_it_is_told_how_long_bytes_were_not_looked_at(tmp_path: Path) -> None:
    """Since they were written, until a check read them through."""
    root = tmp_path / "root"
    push(root, 1)
    for pack in (root / "packs").rglob("*.pack"):
        os.utime(pack, (1000, 1000))
    before = stats(root)
    assert (before["checked"], before["lost"]) == (1000, 0)
    assert before["unchecked_packs"] == before["packs"] > 0
    assert " days  at most, since a pack was written or read through\n" in run_cas("stats", "--root", root).stdout
    assert run_cas("fsck", "--data", "--root", root).returncode == 0
    after = stats(root)
    assert after["unchecked_packs"] == 0
    assert after["checked"] > 1000


def test_stats_work_beside_a_live_server(server: StartServer, tmp_path: Path) -> None:
    """And the server's root is the only thing they need."""
    push(tmp_path / "root", 1)
    before = stats(tmp_path / "root")
    running = server(tmp_path / "root", workers=2)
    assert stats(tmp_path / "root")["logical_bytes"] == before["logical_bytes"]
    assert running.get("/v1/_ping")[0] == 200
    assert running.stop() == 0
    assert running.log() == ""


def test_without_json_people_read_a_table(tmp_path: Path) -> None:
    """Units for eyes."""
    push(tmp_path / "root", 1)
    ended = run_cas("stats", "--root", tmp_path / "root")
    assert ended.returncode == 0
    assert "pushed          3.00 MiB  what clients sent\n" in ended.stdout
    assert all(line == line.rstrip() for line in ended.stdout.splitlines())


def test_a_root_that_is_no_store_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    """Looking never makes anything."""
    ended = run_cas("stats", "--root", tmp_path / "nowhere")
    assert (ended.returncode, ended.stdout) == (66, "")
    assert ended.stderr.startswith(f"cas: {tmp_path / 'nowhere'} does not exist")
    assert not (tmp_path / "nowhere").exists()


def test_the_root_may_come_from_the_environment(tmp_path: Path) -> None:
    """Every command reads the same settings."""
    push(tmp_path / "root", 1)
    ended = run_cas("stats", "--json", env={"CAS_ROOT": str(tmp_path / "root")})
    assert json.loads(ended.stdout)["blobs"] == 1
