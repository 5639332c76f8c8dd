"""A journal that lost a record is named before a rebuild needs it, and says everything again once mended (I4)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cas import Damaged, Depth, Digest, Name, Record, Store, rebuild_index
from cas.audit import journal_links, missing_links
from cas.pages import check_metas, read_meta
from cas.records import RECORD_SIZE, Role
from cas.scan import pack_paths, scan_pack
from tests.support.engine import MIB, SMALL, flip, noise, opened, push, read

LAYER = noise(MIB)
NUMBER_AT = 144  # of a meta page: where its commit's number is


@pytest.fixture(params=["sealed", "open"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Names put, moved and deleted, one record of the journal each; as a good end leaves them, and as a kill does."""
    made = tmp_path / "made"
    with opened(made) as store:
        push(store, "layer", LAYER)
        for number in range(6):
            store.change(lambda names, n=number: names.put(Name("tag", str(n)), Record(b"first")))  # type: ignore[misc]
        store.change(lambda names: names.delete(Name("tag", "1")))
        store.change(lambda names: names.put(Name("tag", "2"), Record(b"second")))
        if request.param == "open":
            shutil.copytree(made, tmp_path / "root")
    if request.param == "sealed":
        made.rename(tmp_path / "root")
    return tmp_path / "root"


def journal(root: Path) -> Path:
    """The one pack of the journal that has records."""
    with opened(root) as store:
        layout = store._parts.layout
    packs = [(scan_pack(pack, path), path) for pack, path in pack_paths(layout)]
    [path] = [
        path for scan, path in packs if scan.header is not None and scan.header.role is Role.JOURNAL and scan.records
    ]
    return path


def spoil(root: Path, number: int) -> None:
    """Flip a bit of the record of one change, in its body."""
    path = journal(root)
    records = scan_pack(int(path.stem, 16), path).records
    record = next(r for r in records if r.body.names is not None and r.body.names.seq == number)
    flip(path, record.offset + RECORD_SIZE + 9)


def number_of(root: Path, wanted: str, *, deleted: bool = False) -> int:
    path = journal(root)
    return max(
        record.body.names.seq
        for record in scan_pack(int(path.stem, 16), path).records
        if record.body.names is not None
        for edit in record.body.names.edits
        if edit.key == Name("tag", wanted).key() and (edit.record is None) == deleted
    )


def tags(store: Store) -> dict[str, bytes]:
    return {name.path: record.value for name, record in store.scan("tag")}


def test_a_lost_record_is_named_with_what_a_rebuild_would_lose(root: Path) -> None:
    """Even by a quick check; the pack it lay in, and the numbers that are recorded nowhere."""
    number = number_of(root, "4")
    spoil(root, number)
    with opened(root) as store:
        found = list(store.check(Depth.QUICK))
    said = {finding.check: finding for finding in found}
    assert set(said) == {"packs", "journal"}
    assert journal(root).stem in said["packs"].where
    assert said["packs"].what.endswith("a rebuild of the index would miss the changes of names in it")
    assert f"changes of names {number} to {number} are recorded nowhere" in said["journal"].what
    assert {finding.invariant for finding in found} == {"I4"}


@pytest.mark.parametrize("lost", ["put", "moved", "deleted", "last"])
def test_once_mended_a_rebuild_finds_every_name_as_it_was(root: Path, lost: str) -> None:
    """What the lost record put, replaced or deleted: nothing is missing, nothing old comes back."""
    with opened(root) as store:
        before = tags(store)
        top = store._parts.index.read(lambda view: view.number("journal_seq"))
    numbers = {
        "put": number_of(root, "4"),
        "moved": number_of(root, "2"),
        "deleted": number_of(root, "1", deleted=True),
        "last": top,
    }
    assert before == {"0": b"first", "2": b"second", "3": b"first", "4": b"first", "5": b"first"}
    spoil(root, numbers[lost])
    with opened(root) as store:
        report = store.repair(Depth.QUICK)
        assert (report.left, report.lost) == ((), ())
        assert tags(store) == before
        assert list(store.check(Depth.DEEP)) == []
        store.collect()
        store.compact(everything=True)
        assert list(store.check(Depth.DEEP)) == []
    shutil.rmtree(root / "index")
    assert rebuild_index(root, SMALL).damaged == []
    with opened(root) as store:
        assert tags(store) == before
        assert read(store, Digest.of(LAYER)) == LAYER
        assert list(store.check(Depth.DEEP)) == []


def test_a_whole_pack_of_the_journal_that_is_gone_is_mended_too(root: Path) -> None:
    """Nothing of it is left but what the index knows."""
    with opened(root) as store:
        before = tags(store)
    journal(root).unlink()
    with opened(root) as store:
        assert "journal" in {finding.check for finding in store.check(Depth.QUICK)}
        assert store.repair(Depth.QUICK).left == ()
    shutil.rmtree(root / "index")
    assert rebuild_index(root, SMALL).damaged == []
    with opened(root) as store:
        assert tags(store) == before
        assert read(store, Digest.of(LAYER)) == LAYER


def test_numbers_that_were_stepped_over_are_no_gap() -> None:
    """A record names the one before it that counts; what lies between never happened."""
    assert list(missing_links({1: 0, 2: 1, 5: 2, 6: 5}, 6)) == []
    assert list(missing_links({1: 0, 2: 1, 6: 5}, 6)) == [(2, 5)]
    assert list(missing_links({2: 1}, 4)) == [(2, 4), (0, 1)]
    assert list(missing_links({}, 3)) == [(0, 3)]
    assert list(missing_links({}, 0)) == []


def test_the_links_of_a_sound_journal_lead_through(root: Path) -> None:
    """From the number in the index down to nothing."""
    with opened(root) as store:
        top = store._parts.index.read(lambda view: view.number("journal_seq"))
        assert list(missing_links(journal_links(store._parts), top)) == []


@pytest.mark.parametrize("bit", range(6))
@pytest.mark.parametrize("slot", [0, 1])
def test_an_index_that_went_back_to_an_older_state_is_refused(root: Path, slot: int, bit: int) -> None:
    """A flipped bit in the number of a meta page can make LMDB take the older one: the last change would be undone."""
    with opened(root) as store:
        store.change(lambda names: names.put(Name("tag", "last"), Record(b"acknowledged")))
    flip(root / "index" / "data.mdb", slot * 4096 + NUMBER_AT, bit)
    with pytest.raises(Damaged, match=r"meta page.* of commit.*--rebuild-index --force"):
        Store.open(root, SMALL)
    assert rebuild_index(root, SMALL, force=True).damaged == []
    with opened(root) as store:
        assert tags(store)["last"] == b"acknowledged"


def test_every_commit_leaves_the_meta_pages_as_they_are_to_be(tmp_path: Path) -> None:
    """Whatever it did: new tables, refused changes, deletions, collections, a copy; nothing is cried over."""
    with opened(tmp_path / "root") as store:
        data = tmp_path / "root" / "index" / "data.mdb"

        def look(path: Path = data) -> None:
            with path.open("rb") as file:
                first, second = (
                    read_meta(os.pread(file.fileno(), 4096, 0), 0),
                    read_meta(os.pread(file.fileno(), 4096, 4096), 1),
                )
                check_metas(first, second, lambda page, count: os.pread(file.fileno(), count * 4096, page * 4096))

        look()
        for number in range(40):
            push(store, str(number), noise(40_000, number))
            look()
            with pytest.raises(ZeroDivisionError):
                store.change(lambda names: names.put(Name("tag", "none"), Record(b"%d" % (1 // 0))))
            look()
        for number in range(40):
            store.change(lambda names, n=number: names.delete(Name("thing", str(n))))  # type: ignore[misc]
            look()
        store.collect()
        store.compact(everything=True)
        look()
        store.backup(tmp_path / "copy")
        look(tmp_path / "copy" / "index" / "data.mdb")
    with opened(tmp_path / "copy") as store:
        push(store, "after", b"wards")
        assert list(store.check(Depth.DEEP)) == []
