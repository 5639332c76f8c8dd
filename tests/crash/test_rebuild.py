"""The packs are enough: an index made anew says what the old one said, and names what is damaged (I4, I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

import cas.scan
from cas import (
    Digest,
    EngineSettings,
    IndexMissing,
    Missing,
    Name,
    Names,
    NoSpace,
    RebuildReport,
    Record,
    Store,
    rebuild_index,
)
from cas.commit import JOURNAL_SEQ
from cas.disk import Disk
from cas.errors import OtherDisk
from cas.index import Edit, Index
from cas.layout import Layout, pack_id
from cas.packs import PackPool
from cas.records import HEADER_SIZE, BlobEntry, Body, ChunkEntry, ChunkRef, NameChanges, NameEdit, Role, Segment
from cas.records import Record as PackRecord
from cas.scan import scan_pack
from cas.tables import TABLES
from cas.view import View
from tests.support.engine import KIB, MIB, SMALL, flip, noise, opened, packs_of, prose, push, read, stage
from tests.support.processes import can_mount, run_python, run_to_its_death

Tables = dict[str, dict[bytes, list[bytes]]]


def busy_life(store: Store) -> None:
    """Everything that leaves a trace: new, repeated, overwritten, deleted, refused, abandoned, renamed, kept twice."""
    for n in range(4):
        push(store, f"text {n}", prose(200 * KIB, n) + prose(300 * KIB, 99))
        push(store, f"noise {n}", noise(2 * MIB, n))
        push(store, f"tiny {n}", b"%d" % n)
    push(store, "twice", noise(2 * MIB, 1))
    push(store, "zeros", bytes(MIB))
    push(store, "text 0", b"now something else")
    with store.upload() as upload:
        upload.write(noise(MIB, 50))

    def refused(names: Names) -> None:
        names.keep(stage(store, b"inline, refused"))
        names.put(Name("thing", "never"), Record(b""))
        raise KeyError

    with pytest.raises(KeyError):
        store.change(refused)
    store.change(lambda names: [names.delete(Name("thing", path)) for path in ("noise 2", "tiny 2")])
    moved = Digest.of(noise(2 * MIB, 3))
    store.change(lambda names: names.put(Name("alias", "of noise 3"), Record(b"x", (moved, Digest.of(b"1")), 5)))
    store.change(lambda names: names.delete(Name("thing", "noise 3")))
    store.change(lambda names: names.put(Name("note", "ä/ö"), Record(b"held by nothing", (), 7)))


def tables(store: Store) -> Tables:
    """Every entry of the index, but of what must differ.

    After a rebuild no upload is under way and no pack has an owner or is open; a pack's committed length is that of its
    file. Blobs that no name holds are not brought back: they wait for collection anyway.
    """

    def dump(view: View) -> Tables:
        found: Tables = {}
        for table in TABLES:
            rows: dict[bytes, list[bytes]] = {}
            for key, value in view.dump(table):
                rows.setdefault(key, []).append(value)
            found[table] = rows
        wanted = {digest.pack(): view.blob(digest) for digest in view.digests() if view.holders(digest)}
        recipes = {blob.recipe.to_bytes(8, "big") for blob in wanted.values() if blob is not None}
        found["blobs"] = {key: value for key, value in found["blobs"].items() if key in wanted}
        found["recipes"] = {key: value for key, value in found["recipes"].items() if key[:8] in recipes}
        found["packs"] = {key: [value[1:2] for value in rows] for key, rows in found["packs"].items()}  # the role
        assert not found.pop("uploads")
        return found

    return store._parts.index.read(dump)


def rebuild(root: Path) -> RebuildReport:
    """Delete the index and make it anew."""
    shutil.rmtree(root / "index")
    return rebuild_index(root, SMALL)


def records_of(path: Path) -> list[PackRecord]:
    """A pack's records."""
    pack = pack_id(path.name)
    assert pack is not None
    return scan_pack(pack, path).records


class OverlayDisk(Disk):
    """The real disk, with folders that stay on their layer."""

    def rename(self, path: Path, to: Path) -> None:
        if path.name == "index" and path.is_dir():
            raise OtherDisk("planted")
        super().rename(path, to)


def rebuild_on_overlay(*, mount: bool) -> None:
    """Run in a process of its own: an index made anew whose folder lies in the lower layer, or seems to."""
    base = Path(sys.argv[1])
    root, lower = base / "root", base / "lower"
    for folder in (root, lower, base / "layers"):
        folder.mkdir()
    with opened(lower) as store:
        busy_life(store)
        before = tables(store)
    if mount:  # its upper layer may not be on an overlay itself, as all of a container is
        subprocess.run(["mount", "-t", "tmpfs", "none", base / "layers"], check=True)
        for name in ("upper", "work"):
            (base / "layers" / name).mkdir()
        layers = f"lowerdir={lower},upperdir={base}/layers/upper,workdir={base}/layers/work,userxattr"
        mount = not subprocess.run(["mount", "-t", "overlay", "-o", layers, "none", root], check=False).returncode
    if not mount:
        shutil.copytree(lower, root, dirs_exist_ok=True)
    old = (root / "index" / "data.mdb").read_bytes()
    rebuild_index(root, SMALL, force=True, disk=None if mount else OverlayDisk())
    assert (root / "index.old-1" / "data.mdb").read_bytes() == old
    with Store.open(root, SMALL) as store:
        assert tables(store) == before
    sys.stdout.write("kept\n")


class TestWholeStores:
    """Nothing is damaged."""

    def test_every_table_says_the_same_after_a_rebuild(self, tmp_path: Path) -> None:
        """Chunks, blobs, recipes with their extents, names, holders and counters, entry by entry."""
        with opened(tmp_path) as store:
            busy_life(store)
        with opened(tmp_path) as store:
            before, stats = tables(store), store.stats()
        report = rebuild(tmp_path)
        assert report.damaged == []
        with opened(tmp_path) as store:
            after = tables(store)
            for table in before:
                assert after[table] == before[table], table
            assert (report.chunks, report.names) == (stats.chunks, stats.names)
            assert (report.packs, report.blobs) == (stats.packs, len(before["blobs"]))
            assert store.stats().logical_bytes == stats.logical_bytes
            for name, record in store.scan("thing"):
                assert Digest.of(read(store, record.holds[0])) == record.holds[0], name

    def test_a_rebuild_of_a_rebuild_is_the_same(self, tmp_path: Path) -> None:
        """And work goes on in between: journal numbers and packs do not clash."""
        with opened(tmp_path) as store:
            busy_life(store)
        for n in range(3):
            assert rebuild(tmp_path).damaged == []
            with opened(tmp_path) as store:
                push(store, f"later {n}", noise(300 * KIB, 70 + n))
                there = {name.path: record for name, record in store.scan("thing")}
                seq = store._parts.index.read(lambda view: view.number(JOURNAL_SEQ))
            rebuild(tmp_path)
            with opened(tmp_path) as store:
                assert {name.path: record for name, record in store.scan("thing")} == there
                assert store._parts.index.read(lambda view: view.number(JOURNAL_SEQ)) == seq

    def test_one_that_fails_leaves_the_old_index_where_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At each write of the new one in turn; only one that is whole takes its place."""
        with opened(tmp_path) as store:
            for n in range(3):
                push(store, f"noise {n}", noise(200 * KIB, n))
            before = tables(store)
        data, write = (tmp_path / "index" / "data.mdb").read_bytes(), Index.write
        left = 0

        def failing(index: Index, work: Callable[[Edit], object]) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise NoSpace("planted")
            return write(index, work)

        monkeypatch.setattr(Index, "write", failing)
        for fails in range(100):
            left = fails
            try:
                rebuild_index(tmp_path, SMALL, force=True)
            except NoSpace as error:
                assert str(error) == "planted; the index that is there was left as it was"  # noqa: PT017 - in a loop
                assert (tmp_path / "index" / "data.mdb").read_bytes() == data
                assert not list(tmp_path.glob("index.*"))
            else:
                break
        assert fails > 5
        assert (tmp_path / "index.old-1" / "data.mdb").read_bytes() == data
        monkeypatch.undo()
        with Store.open(tmp_path, SMALL) as store:
            assert tables(store) == before

    @pytest.mark.parametrize("which", [0, 1])
    def test_one_that_ends_between_two_indexes_is_done_once_more(self, tmp_path: Path, which: int) -> None:
        """The old one is there still, or the command that makes the new one is said."""

        class Ends(BaseException):
            """The process ends here."""

        class Ending(Disk):
            renames = 0

            def rename(self, path: Path, to: Path) -> None:
                if self.renames == which:
                    raise Ends
                self.renames += 1
                super().rename(path, to)

        with opened(tmp_path) as store:
            push(store, "noise", noise(200 * KIB))
            before = tables(store)
        with pytest.raises(Ends):
            rebuild_index(tmp_path, SMALL, force=True, disk=Ending())
        if which:
            with pytest.raises(IndexMissing, match="cas fsck --rebuild-index --root"):
                Store.open(tmp_path, SMALL)
        else:
            Store.open(tmp_path, SMALL).close()
        rebuild_index(tmp_path, SMALL, force=not which)
        with Store.open(tmp_path, SMALL) as store:
            assert tables(store) == before

    def test_a_folder_that_came_with_a_containers_image_is_no_hindrance(self, tmp_path: Path) -> None:
        """Overlayfs moves files of its lower layer, but no folder; on a real one where the kernel lets us."""
        mount = can_mount()
        script = f"from tests.crash.test_rebuild import rebuild_on_overlay; rebuild_on_overlay(mount={mount})"
        assert run_python(script, tmp_path, mounts=mount).stdout == "kept\n"

    def test_an_empty_store_rebuilds_to_an_empty_store(self, tmp_path: Path) -> None:
        """Nothing in, nothing out, no complaint."""
        with opened(tmp_path):
            pass
        assert rebuild(tmp_path) == RebuildReport()

    def test_sealed_packs_are_read_by_their_footer_and_others_are_searched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a clean close nothing is searched; after a kill only what was open."""
        ways: Counter[str] = Counter()
        for way in ("_search", "_listed"):
            monkeypatch.setattr(cas.scan, way, _counted(ways, way, getattr(cas.scan, way)))
        with opened(tmp_path) as store:
            busy_life(store)
        packs = len(packs_of(tmp_path))
        rebuild(tmp_path)
        assert ways == {"_listed": packs}
        dying = """
import os, signal, sys
from pathlib import Path
from cas import Store
from tests.support.engine import KIB, SMALL, noise, push
store = Store.open(Path(sys.argv[1]), SMALL)
push(store, "last", noise(90 * KIB, 5))
os.kill(os.getpid(), signal.SIGKILL)
"""
        run_to_its_death(dying, tmp_path)
        ways.clear()
        assert rebuild(tmp_path).damaged == []
        assert ways == {"_listed": packs, "_search": 2}
        with opened(tmp_path) as store:
            assert read(store, Digest.of(noise(90 * KIB, 5))) == noise(90 * KIB, 5)

    def test_pushed_content_that_looks_like_a_footer_hides_nothing(self, tmp_path: Path) -> None:
        """At the torn end of an open pack lies what a client sent: a footer that lists no record."""
        dying = """
import os, signal, sys
from pathlib import Path
from cas import Store
from tests.support.engine import KIB, SMALL, noise, push
store = Store.open(Path(sys.argv[1]), SMALL, create=True)
push(store, "kept", noise(90 * KIB, 5))
os.kill(os.getpid(), signal.SIGKILL)
"""
        run_to_its_death(dying, tmp_path)
        for path in packs_of(tmp_path):
            at = path.stat().st_size
            partial = struct.pack(">QIQ8s", at, 0, 0, b"CASSEAL\0")
            checksum = xxhash.xxh3_64_intdigest(partial)
            with path.open("ab") as file:
                file.write(struct.pack(">QIQ8s", at, 0, checksum, b"CASSEAL\0"))
        assert rebuild(tmp_path).blobs == 1
        with opened(tmp_path) as store:
            assert read(store, Digest.of(noise(90 * KIB, 5))) == noise(90 * KIB, 5)

    def test_pushed_content_that_is_a_whole_pack_adds_nothing(self, tmp_path: Path) -> None:
        """Somebody pushes a copy of a pack, records and all: it stays content."""
        with opened(tmp_path / "other") as store:
            push(store, "smuggled", noise(300 * KIB, 8))
        packs = b"".join(path.read_bytes() for path in packs_of(tmp_path / "other"))
        dying = """
import os, signal, sys
from pathlib import Path
from cas import Store
from tests.support.engine import SMALL, push
store = Store.open(Path(sys.argv[1]), SMALL, create=True)
push(store, "packs", Path(sys.argv[2]).read_bytes())
os.kill(os.getpid(), signal.SIGKILL)
"""
        (tmp_path / "packs").write_bytes(packs)
        run_to_its_death(dying, tmp_path / "root", tmp_path / "packs")
        assert rebuild(tmp_path / "root").damaged == []
        with opened(tmp_path / "root") as store:
            assert [name.path for name, _ in store.scan("thing")] == ["packs"]
            assert read(store, Digest.of(packs)) == packs

    def test_very_many_chunks_are_rebuilt(self, tmp_path: Path) -> None:
        """More than fit one transaction's slice, one recipe over many segments."""
        chunks = many_chunks(tmp_path, 25_000)
        report = rebuild_index(tmp_path, replace(SMALL, map_bytes=64 * MIB))
        assert (report.chunks, report.blobs, report.damaged) == (chunks, 1, [])


class TestDamagedPacks:
    """What can be read comes back; what cannot is named."""

    def _store(self, root: Path) -> None:
        with Store.open(root, replace(SMALL, pack_bytes=2 << 30), create=True) as store:
            push(store, "first", noise(300 * KIB, 1))
            push(store, "second", noise(6 * MIB, 2))
            push(store, "third", noise(300 * KIB, 3))

    def _damage_second(self, root: Path) -> int:
        """Flip a bit in the first record of the second blob."""
        (path,) = packs_of(root, Role.DATA)
        record = records_of(path)[1]
        flip(path, record.offset + 30)
        return record.offset

    def test_a_damaged_record_is_named_with_the_blobs_it_costs(self, tmp_path: Path) -> None:
        """The pack and byte of the record, the digest of the blob; all others are whole."""
        self._store(tmp_path)
        offset = self._damage_second(tmp_path)
        report = rebuild(tmp_path)
        (path,) = packs_of(tmp_path, Role.DATA)
        assert f"pack {path.stem}: the record at byte {offset} is damaged" in report.damaged
        second = Digest.of(noise(6 * MIB, 2))
        assert [line for line in report.damaged if line.startswith(f"blob {second} is incomplete")]
        assert len(report.damaged) == 2
        with opened(tmp_path) as store:
            assert read(store, Digest.of(noise(300 * KIB, 1))) == noise(300 * KIB, 1)
            assert read(store, Digest.of(noise(300 * KIB, 3))) == noise(300 * KIB, 3)
            with pytest.raises(Missing):
                read(store, second)
            push(store, "again", noise(6 * MIB, 2))
            assert read(store, second) == noise(6 * MIB, 2)

    def test_a_blob_that_lost_a_shared_chunk_is_never_served_short(self, tmp_path: Path) -> None:
        """Its own record is sound, the record that tells of the chunk is not: not here, rather than shorter."""
        with Store.open(tmp_path, replace(SMALL, pack_bytes=2 << 30), create=True) as store:
            push(store, "one", prose(600 * KIB, 1))
            two = push(store, "two", prose(600 * KIB, 1) + noise(300 * KIB, 2))
        (path,) = packs_of(tmp_path, Role.DATA)
        flip(path, records_of(path)[0].offset + 30)
        report = rebuild(tmp_path)
        assert f"blob {two} is incomplete from byte 0 on" in report.damaged
        with opened(tmp_path) as store, pytest.raises(Missing):
            read(store, two)

    def test_a_chunk_whose_bytes_a_crash_took_is_not_believed(self, tmp_path: Path) -> None:
        """In a pack without a footer a record may have outlived its data: such a chunk gets no row (I2)."""
        self._store(tmp_path)
        (path,) = packs_of(tmp_path, Role.DATA)
        lost = records_of(path)[1].body.chunks[0]
        flip(path, path.stat().st_size - 20)  # the footer
        flip(path, lost.offset + lost.stored // 2)
        report = rebuild(tmp_path)
        second = Digest.of(noise(6 * MIB, 2))
        assert [line.split(" from ")[0] for line in report.damaged] == [f"blob {second} is incomplete"]
        with opened(tmp_path) as store:
            rows = store._parts.index.read(lambda view: view.chunks([lost.key]))
            assert rows == [[]]

    def test_a_damaged_footer_costs_nothing(self, tmp_path: Path) -> None:
        """The records are found by searching."""
        self._store(tmp_path)
        for path in packs_of(tmp_path):
            flip(path, path.stat().st_size - 20)
        assert rebuild(tmp_path).damaged == []
        with opened(tmp_path) as store:
            assert len(store.scan("thing")) == 3
            assert read(store, Digest.of(noise(6 * MIB, 2))) == noise(6 * MIB, 2)

    def test_a_damaged_header_is_named(self, tmp_path: Path) -> None:
        """Without its marker a pack cannot be believed; what it held is reported."""
        self._store(tmp_path)
        (path,) = packs_of(tmp_path, Role.DATA)
        flip(path, 20)
        report = rebuild(tmp_path)
        assert f"pack {path.stem} has a damaged header" in report.damaged
        assert len([line for line in report.damaged if "is incomplete from byte 0 on" in line]) == 3

    def test_a_damaged_journal_record_is_named_and_the_rest_is_replayed(self, tmp_path: Path) -> None:
        """Which changes are lost is said by number."""
        self._store(tmp_path)
        (path,) = packs_of(tmp_path, Role.JOURNAL)
        flip(path, records_of(path)[1].offset + 60)
        report = rebuild(tmp_path)
        assert "journal records 2 to 2 are missing; changes of names in them are lost" in report.damaged
        with opened(tmp_path) as store:
            assert [name.path for name, _ in store.scan("thing")] == ["first", "third"]

    @pytest.mark.parametrize("size", [0, 1, HEADER_SIZE - 1, HEADER_SIZE])
    def test_a_pack_cut_off_at_its_birth_is_no_damage(self, size: int, tmp_path: Path) -> None:
        """A crash between making a file and writing to it left nothing that anybody was told of."""
        self._store(tmp_path)
        whole = packs_of(tmp_path)[0].read_bytes()
        (tmp_path / "packs" / "ab" / "abababababababab.pack").write_bytes(whole[:size])
        (tmp_path / "packs" / "ab" / "notes.txt").write_text("not a pack")
        assert rebuild(tmp_path).damaged == []


def _counted(counter: Counter[str], name: str, function):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    def wrapper(*arguments: object, **named: object) -> object:
        counter[name] += 1
        return function(*arguments, **named)

    return wrapper


def many_chunks(root: Path, count: int) -> int:
    """Write a store without an index: one blob of `count` one-byte chunks, as records say it."""
    with Store.open(root, EngineSettings(reserve_bytes=0), create=True):
        pass
    shutil.rmtree(root / "index")
    pool = PackPool(
        Disk(),
        Layout(root),
        EngineSettings(),
        store=bytes(16),
        clock=lambda: 0.0,
        register=lambda *_: None,
        sealed=lambda *_: None,
        is_open=lambda _: True,
        forget=lambda _: None,
        failed=lambda: None,
    )
    data, journal = pool.take(Role.DATA), pool.take(Role.JOURNAL)
    refs = [ChunkRef(n.to_bytes(16, "big"), n, 1) for n in range(count)]
    for first in range(0, count, 1000):
        part = refs[first : first + 1000]
        offset = data.append([bytes(len(part))])
        entries = [ChunkEntry(ref.key, ref.salt, offset + n, 1, 1, 0, 0) for n, ref in enumerate(part)]
        data.commit(Body(chunks=entries, segments=[Segment(7, first, tuple(part))]))
    blob = BlobEntry(Digest.of(b"as said"), count, 0, recipe=7)
    name = NameEdit(Name("thing", "x").key(), Record(b"", (blob.digest,), count).encode())
    journal.commit(Body(blobs=[blob], names=NameChanges(1, 0, (name,))))
    pool.give_back(data)
    pool.give_back(journal)
    pool.close()
    return count


def test_a_journal_whose_newest_changes_are_gone_is_reported(tmp_path: Path) -> None:
    """The number that was reserved for them outlives them; whoever rebuilds is told which are nowhere."""
    with opened(tmp_path) as store:
        push(store, "a", b"a")
        push(store, "b", b"b")
        journal = next(row for row in store._parts.index.read(lambda view: view.packs()) if row.role is Role.JOURNAL)
        path = Layout(tmp_path).pack(journal.pack)
        torn = path.read_bytes()[: journal.committed - 1]
    path.chmod(0o640)
    path.write_bytes(torn)
    report = rebuild_index(tmp_path, force=True)
    assert any("are nowhere" in complaint for complaint in report.damaged)
    with Store.open(tmp_path) as store:
        assert [name.path for name, _ in store.scan("thing")] == ["a"]


@pytest.mark.parametrize("rotten", ["old", "new"])
def test_of_two_packs_that_tell_of_the_same_chunks_the_one_that_is_whole_is_believed(
    rotten: str, tmp_path: Path
) -> None:
    """A compaction was ended before it removed what it had moved, and one of both copies rotted."""
    data = {f"noise {n}": noise(100 * KIB, n) for n in range(3)}
    with opened(tmp_path) as store:
        for name, each in {"gone": noise(KIB * 50, 9), **data}.items():
            push(store, name, each)
        store.change(lambda names: names.delete(Name("thing", "gone")))
        store.collect()
        (old,) = packs_of(tmp_path, Role.DATA)

        def end(step: str) -> None:
            if step == "moved":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.compact(everything=True, progress=end)
    (new,) = set(packs_of(tmp_path, Role.DATA)) - {old}
    bad = {"old": old, "new": new}[rotten]
    for record in scan_pack(int(bad.stem, 16), bad).records:
        for chunk in record.body.chunks:
            flip(bad, chunk.offset)
    rebuild_index(tmp_path, SMALL, force=True)
    with opened(tmp_path) as store:
        assert {name: read(store, Digest.of(each)) for name, each in data.items()} == data
