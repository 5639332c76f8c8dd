"""A seeded campaign of flipped bits: in every class of bytes of packs and of the index (I3, I9).

`make rot [FLIPS=50] [SEED=n]` is the long one. Each flip is made in a copy of one store, with packs that were closed in
good order and such as a killed process leaves, and then everything is asked: is it named, is what is served true, is it
mended, is all back after a push. A flip that is not named must have changed nothing that anybody can see.
"""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cas import Damaged, Depth, Digest, Missing, Name, Record, Store, inspect_index, rebuild_index
from cas.extent import Codec
from cas.records import HEADER_SIZE, RECORD_SIZE, Role
from cas.scan import pack_paths, scan_pack
from cas.tables import TABLES
from cas.view import View
from tests.support.engine import KIB, SMALL, flip, noise, opened, prose, push

_FLIP_S = 60  # a flip takes a second; one that sends a process in circles is ended
_HALF_OPEN = 2  # of the names below come after everything before them was sealed
CONTENT = {
    "raw": noise(300 * KIB, 1),
    "zstd": prose(200 * KIB, 2),
    "both": prose(64 * KIB, 3) + noise(200 * KIB, 4),
    "small": b"small " * 40,
    "late raw": noise(150 * KIB, 5),
    "late zstd": prose(150 * KIB, 6),
}
MANY = 400  # names and small blobs, so that the index has branch pages
SHARERS = 200  # names that hold one blob: a tree within a tree
LARGE = Record(noise(9000, 8))  # a value of several pages
Places = dict[str, list[tuple[Path, int, int]]]  # class of bytes → file below the root, first byte, one past the last


def make(root: Path) -> None:
    """Make a store with sealed and open packs of both roles, dead bytes in them, and an index of many pages."""
    names = list(CONTENT)
    made = root.with_name("made")
    with opened(made) as store:
        for number in range(MANY):
            push(store, f"many {number:04}", b"%d" % number * 20)
        for number in range(SHARERS):
            record = Record(b"%d" % number, (Digest.of(b"0" * 20),))
            store.change(lambda edits, n=number, record=record: edits.put(Name("sharer", f"{n:04}"), record))  # type: ignore[misc]
        store.change(lambda edits: edits.put(Name("large", "one"), LARGE))
        push(store, "dead", noise(120 * KIB, 9))
        for name in names[:-_HALF_OPEN]:
            push(store, name, CONTENT[name])
        store.change(lambda edits: edits.delete(Name("thing", "dead")))
        store.collect()
    with opened(made) as store:
        for name in names[-_HALF_OPEN:]:
            push(store, name, CONTENT[name])
        shutil.copytree(made, root)  # as a killed process would leave it
    shutil.rmtree(made)
    with opened(root):
        pass


def places(root: Path) -> Places:
    """Say where in a store which bytes are."""
    found: Places = {}
    with opened(root) as store:
        layout = store._parts.layout
    for pack, path in pack_paths(layout):
        scan, where = scan_pack(pack, path), path.relative_to(root)
        assert scan.header is not None
        kind = f"{'journal' if scan.header.role is Role.JOURNAL else 'data'} {'sealed' if scan.sealed else 'open'}"

        def note(what: str, first: int, last: int, where: Path = where, kind: str = kind) -> None:
            found.setdefault(f"{kind} {what}", []).append((where, first, last))

        note("header", 0, HEADER_SIZE)
        for record in scan.records:
            note("record head", record.offset, record.offset + RECORD_SIZE)
            note("record body", record.offset + RECORD_SIZE, record.end)
            for entry in record.body.chunks:
                note("zstd" if entry.codec == Codec.ZSTD else "raw", entry.offset, entry.offset + entry.stored)
        if scan.sealed:
            note("footer", scan.records[-1].end if scan.records else HEADER_SIZE, path.stat().st_size)
    return found | _pages(root)


def _pages(root: Path) -> Places:
    """Classify the pages of the index, in use or not, by what they say they are."""
    path, size = Path("index/data.mdb"), 4096
    data, found = (root / path).read_bytes(), Places()
    for page in range(len(data) // size):
        flags = int.from_bytes(data[page * size + 10 : page * size + 12], "little")
        what = {1: "branch", 2: "leaf", 4: "overflow", 8: "meta", 0x22: "fixed leaf"}.get(flags & 0x2F, "other")
        used = {"meta": 160, "overflow": size}.get(what, size)
        found.setdefault(f"index {what}", []).append((path, page * size, page * size + used))
        if what in {"branch", "leaf"}:  # most of a page is empty: go for the heads and nodes as well
            lower, upper = (int.from_bytes(data[page * size + at : page * size + at + 2], "little") for at in (12, 14))
            found.setdefault(f"index {what} head", []).append((path, page * size, page * size + max(lower, 16)))
            found.setdefault(f"index {what} nodes", []).append(
                (path, page * size + min(upper, size - 1), page * size + size)
            )
    return found


def dump(store: Store) -> dict[str, list[tuple[bytes, bytes]]]:
    """Everything that the index says, but for what a process that opens it changes."""

    def look(view: View) -> dict[str, list[tuple[bytes, bytes]]]:
        return {table: list(view.dump(table)) for table in TABLES if table not in {"checked", "packs", "meta"}}

    return store._parts.index.read(look)


class Campaign:
    """One store, flipped again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._whole = folder, folder / "whole"
        self.tally: Counter[str] = Counter()
        make(self._whole)
        self.places = places(self._whole)
        with self._copy() as root, opened(root) as store:
            self._dump = dump(store)
            assert list(store.check(Depth.DEEP)) == []

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        root = self._folder / "copy"
        shutil.copytree(self._whole, root)
        try:
            yield root
        finally:
            shutil.rmtree(root)

    def flip(self, what: str, dice: random.Random) -> str:
        """Flip one bit of a class; return what became of it, having asked for everything that was promised."""
        where, first, last = dice.choice(self.places[what])
        offset, bit = dice.randrange(first, last), dice.randrange(8)
        with self._copy() as root:
            flip(root / where, offset, bit)
            code = apart(lambda: self._ask(root, in_index=what.startswith("index")))
        outcome = _OUTCOMES.get(code)
        assert outcome is not None, f"{what}: bit {bit} of byte {offset} of {where}: ended with {code}"
        self.tally[f"{what}: {outcome}"] += 1
        return outcome

    def _ask(self, root: Path, *, in_index: bool) -> int:
        if inspect_index(root, SMALL) is not None:
            return self._rebuilt(root)
        try:
            store = Store.open(root, SMALL)
        except Damaged:
            return self._rebuilt(root)
        with store:
            found = list(store.check(Depth.DEEP))
            self._read(store, named=bool(found))
            if not found:
                assert dump(store) == self._dump, "nothing is named, and the index says something else"
                return _FREE
            if in_index:
                assert {finding.remedy for finding in found} <= {REBUILD}, found
        if in_index:
            return self._rebuilt(root)
        return self._repaired(root)

    def _read(self, store: Store, *, named: bool) -> None:
        """What is served is true; where it is not, because nobody looks at raw bytes, the check has named it."""
        for name, data in CONTENT.items():
            try:
                record = store.get(Name("thing", name))
                assert record is not None
                assert record.holds == (Digest.of(data),), f"{name} leads elsewhere"
                with store.reader(record.holds[0]) as reader:
                    assert reader.read() == data or named, f"{name} is wrong, and nothing is named"
            except (Damaged, Missing):
                assert named, f"{name} cannot be read, and nothing is named"

    def _repaired(self, root: Path) -> int:
        with opened(root) as store:
            assert store.repair(Depth.DEEP).left == ()
            self._all_back(store)
        shutil.rmtree(root / "index")
        report = rebuild_index(root, SMALL)
        assert report.damaged == [], report.damaged
        with opened(root) as store:
            self._all_there(store)
        return _NAMED

    def _rebuilt(self, root: Path) -> int:
        report = rebuild_index(root, SMALL, force=True)
        assert report.damaged == [], report.damaged
        with opened(root) as store:
            self._all_there(store)
        return _REBUILT

    def _all_back(self, store: Store) -> None:
        """A push of everything heals everything."""
        for name, data in CONTENT.items():
            push(store, name, data)
        self._all_there(store)

    def _all_there(self, store: Store) -> None:
        assert {name.path for name, _ in store.scan("thing")} == {*CONTENT, *(f"many {n:04}" for n in range(MANY))}
        assert len(store.scan("sharer")) == SHARERS
        assert store.get(Name("large", "one")) == LARGE
        for data in CONTENT.values():
            with store.reader(Digest.of(data)) as reader:
                assert reader.read() == data
        assert list(store.check(Depth.DEEP)) == []


REBUILD = "stop the server and run cas fsck --rebuild-index --force"
_FREE, _NAMED, _REBUILT, _FAILED = 0, 1, 2, 70
_OUTCOMES = {
    _FREE: "changed nothing",
    _NAMED: "named and mended",
    _REBUILT: "named and rebuilt",
    -signal.SIGBUS: "ended by a signal",
    -signal.SIGSEGV: "ended by a signal",
    -signal.SIGABRT: "ended by a signal",
}


def apart(work: Callable[[], int]) -> int:
    """Do some work in a process of its own; return how it ended."""
    child = os.fork()
    if child == 0:
        code = _FAILED
        try:
            signal.alarm(_FLIP_S)
            code = work()
        except BaseException:  # noqa: BLE001 - the outermost frame of this process
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Flip FLIPS bits of each class whose name begins with GROUP, from SEED on."""
    flips, seed, group = int(sys.argv[1]), int(sys.argv[2]), "".join(sys.argv[3:4])
    with tempfile.TemporaryDirectory(prefix="cas-rot-") as folder:
        campaign = Campaign(Path(folder))
        failed = 0
        for what in sorted(what for what in campaign.places if what.startswith(group)):
            for number in range(seed, seed + flips):
                try:
                    campaign.flip(what, random.Random(f"{what} {number}"))
                except AssertionError as error:
                    failed += 1
                    sys.stdout.write(f"BROKEN, replay: make rot FLIPS=1 SEED={number}: {error}\n")
        for outcome, count in sorted(campaign.tally.items()):
            sys.stdout.write(f"{count:6} {outcome}\n")
        sys.stdout.write(f"{campaign.tally.total()} flips as promised, {failed} not\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
