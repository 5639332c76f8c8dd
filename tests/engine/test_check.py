"""A check names what is damaged, and nothing else (I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cas import CHECKS, Depth, Digest, Name, Store, rebuild_index
from cas.finding import REPAIR
from cas.records import Role
from tests.engine.test_damage import chunks_of
from tests.support.engine import MIB, SMALL, flip, noise, opened, packs_of, prose, push

DATA = noise(3 * MIB), prose(MIB)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with opened(tmp_path) as store:
        for number, data in enumerate(DATA):
            push(store, str(number), data)
        push(store, "small", b"small")
    return tmp_path


def found(root: Path, depth: Depth) -> list[str]:
    """What a check says of a store, each finding citing an invariant."""
    with opened(root) as store:
        findings = list(store.check(depth))
    assert all(finding.check in CHECKS and finding.invariant == CHECKS[finding.check] for finding in findings)
    return [f"{finding.where}: {finding.what}" for finding in findings]


@pytest.mark.parametrize("depth", list(Depth))
def test_a_sound_store_has_no_findings(root: Path, depth: Depth) -> None:
    """Nothing is cried over."""
    assert found(root, depth) == []


def test_a_flip_anywhere_in_a_pack_is_named(root: Path) -> None:
    """Header, data, records, footer: the pack is named, and once the bit is back nothing is."""
    for path in packs_of(root):
        size = path.stat().st_size
        for offset in {20, 80, size // 3, size // 2, size - 100, size - 20, size - 1}:
            flip(path, offset)
            assert any(path.stem in line for line in found(root, Depth.DATA)), (path.stem, offset, size)
            flip(path, offset)
    assert found(root, Depth.DEEP) == []


def test_a_flip_in_a_pack_that_holds_nothing_yet_is_named_and_mended(root: Path) -> None:
    """Its maker died before the first record, and a rebuild knows how far it goes: else nobody would ever remove it."""
    with opened(root) as store:
        writer = store._parts.packs.create(Role.DATA)
        writer.poisoned = True  # it is not sealed when it is given back
        store._parts.packs.give_back(writer)
    shutil.rmtree(root / "index")
    assert rebuild_index(root, SMALL).damaged == []
    flip(root / "packs" / f"{writer.pack >> 56:02x}" / f"{writer.pack:016x}.pack", 29)
    (line,) = found(root, Depth.DEEP)
    assert line.startswith(f"pack {writer.pack:016x}: its header is damaged")
    with opened(root) as store:
        assert not store.repair().lost
    assert found(root, Depth.DEEP) == []


def test_a_pack_cut_short_or_gone_is_named_with_what_suffers(root: Path) -> None:
    """A quick check is enough for that, and tells blobs and names."""
    path = max(packs_of(root), key=lambda path: path.stat().st_size)
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    assert any("bytes early" in line for line in found(root, Depth.QUICK))
    path.unlink()
    with opened(root) as store:
        findings = list(store.check())
    assert any("is missing" in finding.what and path.stem in finding.where for finding in findings)
    suffers = {digest for finding in findings for digest in finding.blobs}
    assert suffers
    assert suffers <= {Digest.of(data) for data in DATA}
    assert {name.kind for finding in findings for name in finding.names} == {Name("thing", "").kind}


def test_pushes_under_way_are_not_taken_for_damage(root: Path) -> None:
    """Checks beside pushes and deletions find nothing."""

    def load(store: Store, seed: int) -> None:
        for number in range(4):
            push(store, f"{seed}-{number}", noise(MIB // 2, seed * 10 + number))
            store.change(lambda names, path=f"{seed}-{number}": names.delete(Name("thing", path)))  # type: ignore[misc]

    with opened(root) as store, ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load, store, seed) for seed in (1, 2)]
        findings = list(store.check(Depth.DEEP))
        while not all(one.done() for one in loads):
            findings += store.check(Depth.DEEP)
        for one in loads:
            one.result(timeout=30)
        assert findings == []


@pytest.mark.parametrize("how", ["header", "gone"])
def test_what_no_record_tells_of_is_one_finding_a_pack(root: Path, how: str) -> None:
    """However many chunks that are: one bit of a header takes all records along, and nobody reads hundreds of lines."""
    path = max(packs_of(root), key=lambda path: path.stat().st_size)
    if how == "header":
        flip(path, 29)
    else:
        path.unlink()
    with opened(root) as store:
        suffer = whose(store, int(path.stem, 16))
        for depth in Depth:
            pack, chunks = (each for each in store.check(depth) if path.stem in each.where)
            assert (pack.remedy, chunks.remedy, chunks.pack) == (REPAIR, REPAIR, int(path.stem, 16))
            assert chunks.what.startswith("no good record tells of ")
            assert set(chunks.blobs) == suffer
        report = store.repair()
        assert set(report.lost) == (suffer if how == "gone" else set())


def whose(store: Store, pack: int) -> set[Digest]:
    """The blobs of which a chunk lies in a pack."""
    return {
        digest for digest in map(Digest.of, DATA) if any(row.extent.pack == pack for _, row in chunks_of(store, digest))
    }
