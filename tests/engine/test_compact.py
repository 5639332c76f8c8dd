"""Compaction gives the space of dead chunks back and changes nothing else (I1, I4)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cas.compact
from cas import CompactReport, Digest, FileRange, InUse, Name, NoSpace, Record, Store, rebuild_index
from cas.compact import compact
from cas.disk import Disk
from cas.index import Edit
from cas.lease import maintenance_lock
from cas.moving import move
from cas.parts import Parts
from cas.records import Role
from cas.scan import scan_pack
from cas.tables import PackRow, PackState
from cas.view import View
from tests.support.engine import KIB, MIB, SMALL, flip, noise, opened, packs_of, prose, push, read, stage
from tests.support.processes import run_to_its_death, start_python

Contents = dict[str, bytes]


def sweep(store: Store) -> None:
    """Take out of the index what no name holds, as a collection does when nothing else happens."""

    def work(edit: Edit) -> None:
        for digest in edit.digests():
            blob = edit.blob(digest)
            if blob is not None and not edit.holders(digest):
                edit.delete_blob(digest)
                edit.delete_recipe(blob.recipe)
        live = {ref[:2] for digest in edit.digests() for ref in _refs(edit, digest)}
        for key, _ in list(edit.dump("chunks")):
            if (key[:16], int.from_bytes(key[16:], "big")) not in live:
                edit._tx.delete("chunks", key)

    store._parts.index.write(work)


def _refs(view: View, digest: Digest) -> list[tuple[bytes, int, int]]:
    blob = view.blob(digest)
    assert blob is not None
    stretches = view.segments(blob.recipe) if blob.recipe else []
    return [(ref.key, ref.salt, ref.raw) for stretch in stretches for ref in stretch.refs]


def contents(store: Store) -> Contents:
    """Every name with the bytes it holds, proven."""
    found = {name.path: read(store, record.holds[0]) for name, record in store.scan("thing")}
    for name, record in store.scan("thing"):
        assert Digest.of(found[name.path]) == record.holds[0]
    return found


def drop(store: Store, *paths: str) -> None:
    """Delete names."""
    store.change(lambda names: [names.delete(Name("thing", path)) for path in paths])


def rows(store: Store, role: Role) -> list[PackRow]:
    """The rows of one role's packs."""
    return [row for row in store._parts.index.read(lambda view: view.packs()) if row.role is role]


def rot_while_it_moves(store: Store, role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compact everything; a record of the one pack of a role is damaged once it was counted what lives there."""
    (row,) = rows(store, role)
    source = store._parts.layout.pack(row.pack)
    at = scan_pack(row.pack, source).records[1].offset

    def moved(parts: Parts, sources: Sequence[PackRow], *others: Any) -> int:
        if row.pack in {each.pack for each in sources}:
            flip(source, at + 40)
        return move(parts, sources, *others)

    monkeypatch.setattr(cas.compact, "move", moved)
    left = store.compact(everything=True).left
    assert any(f"{row.pack:016x}" in text and "cas fsck --repair" in text for text in left), left
    assert source.exists()


def logical(store: Store) -> dict[str, object]:
    """What the index says, but for places: names, blobs, holders, recipes and chunks by identity."""

    def dump(view: View) -> dict[str, object]:
        tables: dict[str, object] = {name: list(view.dump(name)) for name in ("refs", "blobs", "holders")}
        tables["chunks"] = [key for key, _ in view.dump("chunks")]
        tables["recipes"] = {digest: _refs(view, digest) for digest in view.digests()}
        return tables

    return store._parts.index.read(dump)


def check(root: Path, expected: Contents) -> None:
    """The store, and one rebuilt from its packs, say the same; every chunk lies in a pack that is there."""
    with opened(root) as store:
        assert contents(store) == expected
        before = logical(store)
        places = store._parts.index.read(lambda view: {row.extent.pack for _, row in view.stored_chunks(b"", 10**9)})
        packs = {row.pack for row in store._parts.index.read(lambda view: view.packs())}
    files = {int(path.stem, 16) for path in packs_of(root)}
    assert places <= packs == files
    shutil.rmtree(root / "index")
    assert rebuild_index(root, SMALL).damaged == []
    with opened(root) as store:
        assert contents(store) == expected
        assert logical(store) == before


def filled(store: Store, seed: int, count: int = 14) -> Contents:
    """A random life: new, repeated, small, compressible, overwritten and deleted."""
    dice, expected = random.Random(seed), Contents()
    for n in range(count):
        path = f"{dice.randrange(8)}"
        kind = dice.randrange(5)
        if kind == 0 and expected:
            path = dice.choice(sorted(expected))
            drop(store, path)
            expected.pop(path)
            continue
        data = [b"", noise(dice.randrange(400 * KIB), n), prose(200 * KIB, n), b"%d" % n, noise(300 * KIB, n % 3)][kind]
        push(store, path, data)
        expected[path] = data
    return expected


class TestSpace:
    """What goes, and what stays."""

    @pytest.mark.parametrize("seed", range(6))
    def test_whatever_was_deleted_every_blob_reads_back_and_a_rebuild_agrees(self, seed: int, tmp_path: Path) -> None:
        """A random life, swept and compacted, twice."""
        expected: Contents = {}
        for turn in range(2):
            with opened(tmp_path) as store:
                for path in expected:
                    drop(store, path)
                expected = filled(store, 10 * turn + seed)
                sweep(store)
                store.compact(everything=True)
            check(tmp_path, expected)

    @pytest.mark.parametrize("everything", [True, False])
    def test_a_dry_run_says_exactly_what_the_run_then_does(self, everything: bool, tmp_path: Path) -> None:
        """Figures equal, files untouched until then, and the figures are those of the files."""
        with opened(tmp_path) as store:
            filled(store, 3, 30)
            for path in ("1", "2", "3", "4"):
                drop(store, path)
            sweep(store)
            before = {path: path.stat().st_size for path in packs_of(tmp_path)}
            said = store.compact(everything=everything, dry_run=True)
            assert {path: path.stat().st_size for path in packs_of(tmp_path)} == before
            assert store.compact(everything=everything) == said
            after = {path: path.stat().st_size for path in packs_of(tmp_path)}
        assert said.freed_bytes == sum(before.values()) - sum(after.values()) > 0
        assert said.moved_bytes == sum(size for path, size in after.items() if path not in before)
        assert (said.data.before + said.journal.before) == len(before)
        assert (said.data.after + said.journal.after) == len(after)

    def test_a_second_run_finds_nothing_to_do(self, tmp_path: Path) -> None:
        """Nothing is copied for ever."""
        with opened(tmp_path) as store:
            filled(store, 5, 30)
            sweep(store)
            store.compact(everything=True)
            again = store.compact(everything=True)
        assert (again.moved_bytes, again.freed_bytes, again.left) == (0, 0, [])

    def test_a_pack_with_little_dead_stays_as_it_is(self, tmp_path: Path) -> None:
        """Below the share nothing is copied; with everything, it is."""
        with opened(tmp_path) as store:
            push(store, "keep", noise(380 * KIB, 1))
            push(store, "drop", noise(90 * KIB, 2))
            drop(store, "drop")
            sweep(store)
            before = packs_of(tmp_path)
            assert store.compact().freed_bytes == 0
            assert packs_of(tmp_path) == before
            assert store.compact(everything=True).freed_bytes >= 90 * KIB
            assert contents(store) == {"keep": noise(380 * KIB, 1)}

    def test_extents_name_the_new_pack_at_once(self, tmp_path: Path) -> None:
        """A reader needs no look-up of single chunks: each of the blob's extents leads to a pack that is there."""
        with opened(tmp_path) as store:
            digest = push(store, "keep", noise(150 * KIB, 1))
            push(store, "twin", noise(150 * KIB, 1) + noise(20 * KIB, 4))
            push(store, "drop", noise(200 * KIB, 2))
            drop(store, "drop")
            sweep(store)
            store.compact(everything=True)
            packs = {row.pack for row in store._parts.index.read(lambda view: view.packs())}
            hints = store._parts.index.read(lambda view: view.hints(b"", 100))
            assert hints
            assert all(places and places <= packs for _, places in hints)
            assert len(file_pieces(store, digest)) <= 3


def file_pieces(store: Store, digest: Digest) -> list[FileRange]:
    """The ranges of files a blob is served from."""
    with store.reader(digest) as reader:
        return [piece for piece in reader.pieces() if isinstance(piece, FileRange)]


class TestJournal:
    """Packs of names."""

    def test_a_thousand_tiny_packs_become_one_and_say_the_same(self, tmp_path: Path) -> None:
        """One change each, some undone by later ones; a rebuild gives the same names from the one pack."""
        with opened(tmp_path) as store:
            committer = store._parts.committer
            for n in range(1000):
                store.change(lambda names, n=n: names.put(Name("note", str(n % 300)), Record(b"%d" % n)))  # type: ignore[misc]
                committer.run(lambda *_: committer._drop_journal())
            store.change(lambda names: names.delete(Name("note", "7")))
            there = store.scan("note")
            assert len(rows(store, Role.JOURNAL)) <= 1001
            store.compact(everything=True)
            assert len(rows(store, Role.JOURNAL)) == 1
            store.change(lambda names: names.put(Name("note", "after"), Record(b"x")))
        shutil.rmtree(tmp_path / "index")
        assert rebuild_index(tmp_path, SMALL).damaged == []
        with opened(tmp_path) as store:
            assert len(there) == 299
            assert [pair for pair in store.scan("note") if pair[0].path != "after"] == there


class TestBesideOthers:
    """Uploads and readers go on."""

    def test_one_at_a_time(self, tmp_path: Path) -> None:
        """A second run is told so, and nothing happens."""
        with opened(tmp_path) as store, maintenance_lock(store._parts.layout), pytest.raises(InUse):
            store.compact()

    def test_a_reader_opened_before_reads_on(self, tmp_path: Path) -> None:
        """To the last byte, though the pack is gone."""
        data = noise(300 * KIB, 1)
        with opened(tmp_path) as store:
            digest = push(store, "keep", data)
            push(store, "drop", noise(300 * KIB, 2))
            drop(store, "drop")
            sweep(store)
            with store.reader(digest) as reader:
                first = reader.read(0, 1000)
                assert compact(store._parts, everything=True, quiet=lambda *_: True).moved_bytes
                assert first + reader.read(1000) == data

    def test_an_upload_matches_chunks_while_they_are_moved(self, tmp_path: Path) -> None:
        """What it found in the old pack it finds in the new one."""
        data = noise(200 * KIB, 1)
        with opened(tmp_path) as store:
            push(store, "keep", data)
            push(store, "drop", noise(100 * KIB, 2))
            drop(store, "drop")
            sweep(store)
            with store.upload() as upload:
                upload.write(data + b"more")

                def finish(step: str) -> None:
                    if step == "copied":
                        staged.append(upload.finish(None))

                staged: list[object] = []
                assert compact(store._parts, everything=True, quiet=lambda *_: True, step=finish).moved_bytes
            store.change(lambda names: names.keep(staged[0]))  # type: ignore[arg-type]
            store.change(lambda names: names.put(Name("thing", "twin"), Record(b"", (Digest.of(data + b"more"),))))
        check(tmp_path, {"keep": data, "twin": data + b"more"})

    def test_a_pack_that_is_lent_is_left_alone(self, tmp_path: Path) -> None:
        """An upload in the middle of a run keeps its pack."""
        with opened(tmp_path) as store:
            push(store, "drop", noise(300 * KIB, 2))
            drop(store, "drop")
            sweep(store)
            with store.upload() as upload:
                upload.write(noise(90 * KIB, 5))
                compact(store._parts, everything=True, quiet=lambda *_: True)
                upload.write(noise(200 * KIB, 6))
                staged = upload.finish(None)
            store.change(lambda names: names.keep(staged))
            assert read(store, staged.digest) == noise(90 * KIB, 5) + noise(200 * KIB, 6)

    def test_another_process_goes_on_pushing_after_its_idle_packs_were_closed(self, tmp_path: Path) -> None:
        """Its data pack and its journal are emptied; it opens new ones and never writes to the old."""
        program = (
            "import sys; from pathlib import Path; from tests.support.engine import *\n"
            "with opened(Path(sys.argv[1])) as store:\n"
            "    for line in sys.stdin:\n"
            "        push(store, line.strip(), noise(150 * KIB, int(line))); print('done')\n"
        )
        with opened(tmp_path) as store:
            other = start_python(program, tmp_path)
            assert other.stdin is not None
            assert other.stdout is not None
            for n in (1, 2):
                other.stdin.write(f"{n}\n")
                other.stdin.flush()
                assert other.stdout.readline() == "done\n"
            old = set(packs_of(tmp_path))
            drop(store, "1")
            sweep(store)
            assert store.compact(everything=True).freed_bytes > 0
            assert not old & set(packs_of(tmp_path))
            other.stdin.write("3\n")
            other.stdin.close()
            assert other.stdout.read() == "done\n"
            assert other.wait(30) == 0
            other.stdout.close()
        check(tmp_path, {"2": noise(150 * KIB, 2), "3": noise(150 * KIB, 3)})

    @pytest.mark.parametrize("verb", ["let_go", "tick"])
    def test_what_another_process_has_open_is_given_back_when_it_looks(self, tmp_path: Path, verb: str) -> None:
        """It appends to those packs no more, so it need not hold their bytes until it next pushes; then it goes on."""
        program = (
            "import os, sys; from pathlib import Path; from tests.support.engine import *\n"
            "def held():\n"
            "    files = (os.stat(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if is_pack(n))\n"
            "    return sum(file.st_size for file in files if not file.st_nlink)\n"
            "def is_pack(n):\n"
            "    try: return '.pack' in os.readlink(f'/proc/self/fd/{n}')\n"
            "    except FileNotFoundError: return False\n"
            "with opened(Path(sys.argv[1])) as store:\n"
            "    for line in sys.stdin:\n"
            "        line = line.strip()\n"
            "        if not line.isdigit(): before = held(); getattr(store, line)(); print(before, held())\n"
            "        else: push(store, line, noise(150 * KIB, int(line))); print('done')\n"
        )
        with opened(tmp_path) as store:
            other = start_python(program, tmp_path)
            assert other.stdin is not None
            assert other.stdout is not None

            def ask(line: str) -> str:
                assert other.stdin is not None
                assert other.stdout is not None
                other.stdin.write(line + "\n")
                other.stdin.flush()
                return other.stdout.readline()

            assert ask("1") == "done\n"
            assert ask(verb) == "0 0\n"
            drop(store, "1")
            sweep(store)
            assert store.compact(everything=True).freed_bytes > 150 * KIB
            before, after = map(int, ask(verb).split())
            assert before > 150 * KIB
            assert after == 0
            assert ask("2") == "done\n"
            other.stdin.close()
            assert other.wait(30) == 0
            other.stdout.close()
        check(tmp_path, {"2": noise(150 * KIB, 2)})

    def test_nothing_is_moved_while_an_upload_from_before_is_not_done(self, tmp_path: Path) -> None:
        """A staged blob's last run may lie in a closed pack without the index knowing."""
        with opened(tmp_path) as store:
            push(store, "drop", noise(100 * KIB, 2))
            staged = stage(store, noise(150 * KIB, 3))
            drop(store, "drop")
            sweep(store)
            report = compact(store._parts, everything=True, quiet=lambda *_: False)
            assert any("goes on" in text for text in report.left)
            store.change(lambda names: names.keep(staged))
            assert read(store, staged.digest) == noise(150 * KIB, 3)


STEPS = ["counted", "closed", "copied", "sealed", "moved", "condemned", "unlinked", "refreshed"]


def die_at(root: Path, step: str) -> None:
    """Compact in a process of its own that ends there."""
    program = (
        "import os, signal, sys; from pathlib import Path; from tests.support.engine import *\n"
        "def die(step):\n"
        "    if step == sys.argv[2]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with opened(Path(sys.argv[1])) as store: store.compact(everything=True, progress=die)\n"
    )
    run_to_its_death(program, root, step)


class TestAccidents:
    """Ended in the middle."""

    @pytest.mark.parametrize("step", STEPS)
    def test_killed_anywhere_nothing_is_lost_and_the_next_run_ends_it(self, step: str, tmp_path: Path) -> None:
        """Opened and compacted again: the same names, a rebuild agrees, and no file is left over."""
        with opened(tmp_path) as store:
            expected = filled(store, 4, 24)
            sweep(store)
        die_at(tmp_path, step)
        with opened(tmp_path) as store:
            assert contents(store) == expected
            store.compact(everything=True)
            again = store.compact(everything=True)
            assert (again.moved_bytes, again.freed_bytes, again.left) == (0, 0, [])
        check(tmp_path, expected)

    def test_a_full_disk_in_the_middle_leaves_everything_as_it_was(self, tmp_path: Path) -> None:
        """The new pack is gone, the old ones are there, and once there is room it goes on."""

        class Full(Disk):
            left = 10**9

            def write(self, fd: int, buffers, offset: int) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001
                self.left -= 1
                if self.left < 0:
                    raise NoSpace("planted")
                return super().write(fd, buffers, offset)

        disk = Full()
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            expected = filled(store, 4, 24)
            sweep(store)
            before = sorted((path, path.stat().st_size) for path in packs_of(tmp_path))
            wholly_dead = set()
            for writes in range(3):
                disk.left = writes
                report = store.compact(everything=True)
                disk.left = 10**9
                assert any("planted" in text for text in report.left)
                now = sorted((path, path.stat().st_size) for path in packs_of(tmp_path))
                wholly_dead |= set(before) - set(now)
                assert set(now) <= set(before)
                assert contents(store) == expected
            store.compact(everything=True)
        check(tmp_path, expected)

    def test_a_damaged_pack_is_left_alone_and_named(self, tmp_path: Path) -> None:
        """Its bytes are the business of fsck: no copy is made of what cannot be proven, and nothing is removed."""
        with opened(tmp_path) as store:
            push(store, "keep", noise(100 * KIB, 1))
            push(store, "drop", noise(200 * KIB, 2))
            drop(store, "drop")
            sweep(store)
            (place,) = {row.pack for row in rows(store, Role.DATA)}
        path = next(path for path in packs_of(tmp_path) if int(path.stem, 16) == place)
        flip(path, 5000)
        with opened(tmp_path) as store:
            report = store.compact(everything=True)
            assert any(f"{place:016x}" in text and "fsck" in text for text in report.left)
        assert path.exists()

    @pytest.mark.parametrize("sealed", [True, False])
    @pytest.mark.parametrize("role", [Role.DATA, Role.JOURNAL])
    def test_what_rots_while_it_is_copied_is_left_alone(
        self, sealed: bool, role: Role, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A record that was there when it was counted, and cannot be read a moment later, takes nothing along."""
        expected = {str(n): noise(100 * KIB, n) for n in range(3)}
        with opened(tmp_path) as store:
            for path, data in (*expected.items(), ("drop", noise(200 * KIB, 9))):
                push(store, path, data)
            drop(store, "drop")
            sweep(store)
            if not sealed:
                rot_while_it_moves(store, role, monkeypatch)
        if sealed:
            with opened(tmp_path) as store:
                rot_while_it_moves(store, role, monkeypatch)
        with opened(tmp_path) as store:
            assert contents(store) == expected

    def test_a_file_the_index_does_not_know_is_kept_aside(self, tmp_path: Path) -> None:
        """It is in nobody's way, and not deleted: it may come from elsewhere."""
        with opened(tmp_path) as store:
            push(store, "keep", noise(100 * KIB, 1))
            (tmp_path / "packs" / "ab" / "ab00000000000001.pack").write_bytes(b"what is this")
            said = store.compact(dry_run=True)
            assert store.compact() == said
            assert any("ab00000000000001" in text for text in said.left)
        assert (tmp_path / "quarantine" / "ab00000000000001.pack").read_bytes() == b"what is this"
        check(tmp_path, {"keep": noise(100 * KIB, 1)})


def test_small_packs_become_one(tmp_path: Path) -> None:
    """Many short lives leave many small packs; a usual run makes one of them."""
    settings = replace(SMALL, pack_bytes=4 * MIB)
    for n in range(10):
        with opened(tmp_path, settings) as store:
            push(store, str(n), noise(20 * KIB, n))
    with opened(tmp_path, settings) as store:
        report: CompactReport = store.compact()
        assert (report.data.before + report.journal.before, report.data.after + report.journal.after) == (20, 2)
        assert contents(store) == {str(n): noise(20 * KIB, n) for n in range(10)}
        assert {row.state for row in rows(store, Role.DATA)} == {PackState.SEALED}
