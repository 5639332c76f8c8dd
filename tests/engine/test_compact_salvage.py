"""A damaged pack is emptied of what is good, what is bad is named, and its file is kept (I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cas import Digest, Missing, Name, rebuild_index
from cas.records import HEADER_SIZE, Role
from cas.salvage import salvage
from cas.scan import scan_pack
from cas.tables import ChunkState
from cas.view import View
from tests.support.engine import KIB, SMALL, flip, noise, opened, packs_of, prose, push, read


def bad(view: View) -> int:
    """How many chunks are marked."""
    return sum(row.state is ChunkState.BAD for _, row in view.stored_chunks(b"", 10**6))


@pytest.mark.parametrize("what", ["header", "record", "footer", "data"])
def test_what_is_good_in_a_damaged_pack_is_served_on_and_rebuilt(what: str, tmp_path: Path) -> None:
    """Whichever bytes are damaged: at most one chunk is lost, the file is kept, and a rebuild agrees."""
    expected = {"a": noise(150 * KIB, 1), "b": prose(200 * KIB, 2), "c": noise(90 * KIB, 3)}
    with opened(tmp_path) as store:
        for path, data in expected.items():
            push(store, path, data)
    (pack,) = packs_of(tmp_path, Role.DATA)
    places = {
        "header": 20,
        "data": HEADER_SIZE + 100,
        "footer": pack.stat().st_size - 5,
        "record": scan_pack(1, pack).records[-1].offset + 60,
    }
    flip(pack, places[what])
    with opened(tmp_path) as store:
        lost = salvage(store._parts, int(pack.stem, 16))
        assert len(lost) == (what == "data")
        assert store._parts.index.read(bad) == len(lost)
        assert not pack.exists()
        assert (tmp_path / "quarantine" / pack.name).exists()
    for again in range(2):
        with opened(tmp_path) as store:
            for path, data in expected.items():
                if what == "data" and path == "a":
                    with pytest.raises(Missing):
                        read(store, Digest.of(data))
                else:
                    assert read(store, Digest.of(data)) == data
        if not again:
            shutil.rmtree(tmp_path / "index")
            assert len(rebuild_index(tmp_path, SMALL).damaged) == (what == "data")


def test_names_of_a_damaged_journal_are_recorded_anew(tmp_path: Path) -> None:
    """The index still has them; after the salvage a rebuild has them too, as the newest change left them."""
    with opened(tmp_path) as store:
        for n in range(6):
            push(store, str(n % 4), b"tiny %d" % n)
        push(store, "large", noise(200 * KIB, 1))
        store.change(lambda names: names.delete(Name("thing", "0")))
        there = store.scan("thing")
    (pack,) = packs_of(tmp_path, Role.JOURNAL)
    flip(pack, scan_pack(1, pack).records[1].offset + 80)
    with opened(tmp_path) as store:
        assert salvage(store._parts, int(pack.stem, 16)) == []
        assert store.scan("thing") == there
    shutil.rmtree(tmp_path / "index")
    rebuild_index(tmp_path, SMALL)
    with opened(tmp_path) as store:
        assert store.scan("thing") == there
        for _, record in there:
            assert Digest.of(read(store, record.holds[0])) == record.holds[0]
