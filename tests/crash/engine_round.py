"""One round of the campaign against the engine: a store, a random load, cuts and faults, and a model (I1 to I4, I8).

The model knows what was acknowledged. An operation that the power cut off may have happened or not; one that was
refused has not.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import xxhash

from cas import CasError, Depth, Digest, Finding, Name, Names, Record, RepairReport, Store, rebuild_index, restore
from tests.crash.damage import Contents, rot, spoil_and_mend, wrong
from tests.crash.tally import FAULT, KILL, WORK, Tally
from tests.support.dump import Dump, differences, dump, leftovers, pack_bytes
from tests.support.engine import KIB, SMALL, noise, prose, push, read
from tests.support.faults import FAULTS, FaultyCalls, before_commits
from tests.support.powercut import ForgetfulDisk, PowerCut, pull_the_plug

STEPS = 20
_NAMES = ("a", "b", "c", "d", "e")
_PIECES = [noise(30 * KIB + 9 * KIB * n, n) for n in range(6)] + [prose(90 * KIB, n) for n in range(2)]
_ALIKE = [noise(60 * KIB, 100 + n) for n in range(4)]  # as long as each other: twins, where keys are weak
_CUTS = ("", "", "create", "write", "sync", "sync_folder", "unlink", "commit", "commit")

Doubt = tuple[str, bytes | None, bytes | None]


@contextmanager
def weak_keys(sent: Collection[bytes]) -> Iterator[None]:
    """Give all chunks of one length the same key, as ill will could that sends them; what rot makes, nobody can aim."""
    key = xxhash.xxh3_128_digest

    def weak(data: bytes | memoryview) -> bytes:
        chunk = bytes(data)
        return key(len(chunk).to_bytes(8, "big") if any(chunk in one for one in sent) else chunk)

    with patch("xxhash.xxh3_128_digest", weak):
        yield


def unmended(report: RepairReport) -> list[Finding]:
    """What a repair left, but for files that a power cut brought back: those a collection sets aside."""
    return [finding for finding in report.left if finding.remedy != "cas gc"]


class EngineRound:
    """One store, its random load, and what it acknowledged."""

    def __init__(self, folder: Path, seed: int, tally: Tally, *, honest: bool = True) -> None:
        self._root, self._copy, self._folder = folder / "root", folder / "copy", folder
        self._dice, self._tally, self._honest = random.Random(seed), tally, honest
        self._weak = seed % 3 == 0
        self._promised: dict[str, bytes] = {}
        self._sent: set[bytes] = set()
        self._doubt: Doubt | None = None
        self._spoilt = False  # a pack was damaged, perhaps one of the journal
        self._calls = FaultyCalls(seed)

    def run(self) -> None:
        """Do random steps, look after each, and leave no store open."""
        with ExitStack() as stack:
            stack.enter_context(self._calls.in_place())
            if self._weak:
                stack.enter_context(weak_keys(self._sent))
            self._open()
            stack.callback(self._leave)
            for _ in range(STEPS):
                self._dice.choices(*self._steps())[0]()
                self._look()
            self._finish()
        for what, count in self._calls.struck.items():
            self._tally.add(FAULT, what, count)

    def _steps(self) -> tuple[list[Callable[[], None]], list[int]]:
        weights: dict[Callable[[], None], int] = {
            self._push: 3,
            self._delete: 1,
            self._move: 1,
            self._cut: 8,
            self._fail: 16,
            self._across: 2,
            self._collect: 2,
            self._rebuild: 2,
            self._back_up: 1,
            self._rot: 2,
        }
        return list(weights), list(weights.values())

    def _finish(self) -> None:
        self._collect()
        self._look()
        assert list(self._store.check(Depth.DEEP)) == []
        if self._dice.random() < 0.5:
            contents = {Digest.of(data): data for data in self._promised.values()}
            spoil_and_mend(self._store, self._root, contents, self._dice, self._tally)
            self._look()
            self._spoilt = True
        self._rebuild()
        self._look()
        for name in list(self._promised):
            self._remove(name)
        self._collect()
        assert pack_bytes(self._root) < 16 * KIB, "nothing is stored, and its space did not come back"

    def _leave(self) -> None:
        self._disk.cut_after = None
        self._calls.plan(None)
        self._store.close()

    def _open(self) -> None:
        self._disk = ForgetfulDisk(self._dice.getrandbits(30), honest=self._honest)
        self._store = Store.open(self._root, SMALL, create=True, disk=self._disk)
        before_commits(self._store, self._before_commit)
        assert leftovers(self._store) == []

    def _before_commit(self) -> None:
        self._disk.step("commit")
        self._calls.before_commit()

    # What clients do.

    def _content(self) -> bytes:
        if self._dice.random() < (0.6 if self._weak else 0.2):
            return self._dice.choice(_ALIKE)
        return b"".join(self._dice.choices(_PIECES, k=self._dice.randint(1, 4)))[self._dice.randrange(2000) :]

    def _act(self, name: str, after: bytes | None, act: Callable[[], object]) -> None:
        self._doubt = (name, self._promised.get(name), after)
        act()
        self._doubt = None
        self._promise(name, after)

    def _promise(self, name: str, data: bytes | None) -> None:
        self._promised.pop(name, None)
        if data is not None:
            self._promised[name] = data

    def _push(self) -> None:
        name, data = self._dice.choice(_NAMES), self._content()
        self._sent.add(data)
        self._act(name, data, lambda: push(self._store, name, data))

    def _delete(self) -> None:
        self._remove(self._dice.choice(_NAMES))

    def _remove(self, name: str) -> None:
        def delete() -> None:
            assert self._store.change(lambda edits: edits.delete(Name("thing", name))) == (name in self._promised)

        self._act(name, None, delete)

    def _move(self) -> None:
        """Give a blob a second name, without a byte of it."""
        if not self._promised:
            return
        old, name = self._dice.choice(sorted(self._promised)), self._dice.choice(_NAMES)
        data = self._promised[old]

        def edit(names: Names) -> None:
            names.put(Name("thing", name), self._record(name, data))

        self._act(name, data, lambda: self._store.change(edit))

    def _pull(self) -> None:
        for data in self._promised.values():
            assert read(self._store, Digest.of(data)) == data

    def _across(self) -> None:
        """A pull and a push that rely on a blob go on while it is deleted, collected and its pack emptied (I8)."""
        if not self._promised:
            return
        old, name = self._dice.choice(sorted(self._promised)), self._dice.choice(_NAMES)
        data = self._promised[old]
        more = data + self._content()
        self._sent.add(more)
        with self._store.reader(Digest.of(data)) as reader, self._store.upload() as upload:
            upload.write(data)
            for each in [each for each, theirs in self._promised.items() if theirs == data]:
                self._remove(each)
            self._store.collect(wait_s=0)
            self._store.compact(everything=True, wait_s=0)
            assert reader.read() == data
            upload.write(more[len(data) :])
            staged = upload.finish(Digest.of(more))

        def edit(names: Names) -> None:
            names.keep(staged)
            names.put(Name("thing", name), self._record(name, more))

        self._act(name, more, lambda: self._store.change(edit))

    # What goes wrong.

    def _cut(self) -> None:
        """The power goes at a random operation of whatever is under way."""
        cut_at = self._cut_off(self._any_work())
        self._settle_doubt()
        if cut_at in {"sync", "commit"} and self._dice.random() < 0.5:  # perhaps of the journal
            self._rebuild()

    def _cut_off(self, work: Callable[[], object], most: int = 16) -> str:
        """Let the power go in the middle of some work, and open the store again; return at what."""
        self._disk.cut_at = self._dice.choice(_CUTS)
        self._disk.cut_after = self._dice.randrange(4 if self._disk.cut_at else most)
        try:
            work()
        except (PowerCut, CasError):
            assert self._disk.is_cut, "refused without a reason"
        self._tally.add(KILL, "power cuts under way" if self._disk.is_cut else "power cuts at rest")
        cut_at = self._disk.cut_at if self._disk.is_cut else ""
        pull_the_plug(self._store, self._disk)
        for what, count in self._disk.lost.items():
            self._tally.add(FAULT, what, count)
        self._open()
        return cut_at

    def _settle_doubt(self) -> None:
        """What the power cut off has happened or not, but nothing between."""
        doubt, self._doubt = self._doubt, None
        if doubt is None:
            return
        name, before, after = doubt
        record = self._store.get(Name("thing", name))
        kept = next((each for each in (before, after) if record == self._record_or_none(name, each)), b"neither")
        assert kept != b"neither", f"{name} is neither what it was nor what was pushed"
        self._promise(name, kept)

    def _fail(self) -> None:
        """One call of the operating system fails; what is refused then has not happened."""
        fault = self._dice.choice(FAULTS)
        self._calls.plan(fault, self._dice.randrange(6))
        works = [self._any_work() for _ in range(self._dice.randint(1, 3))]
        for work in [self._pull, *works] if fault.call == "read" else works:
            struck = self._calls.struck.total()
            try:
                work()
            except CasError:
                assert self._calls.struck.total() > struck, "refused without a reason"
                self._doubt = None
        if self._dice.random() < 0.7:
            self._calls.plan(None)
        self._store.close()
        self._calls.plan(None)
        self._open()

    def _fail_once(self, work: Callable[[], object]) -> None:
        """Let one call of the operating system fail in the middle of some work, and open the store again."""
        self._calls.plan(self._dice.choice(FAULTS), self._dice.randrange(12))
        struck = self._calls.struck.total()
        try:
            work()
        except CasError:
            assert self._calls.struck.total() > struck, "refused without a reason"
        self._calls.plan(None)
        self._store.close()
        self._open()

    def _end(self, work: Callable[[], object]) -> None:
        """Let some work of an operator's end anywhere."""
        if self._dice.random() < 0.6:
            self._cut_off(work, 48)
        else:
            self._fail_once(work)

    def _rot(self) -> None:
        """A pack rots, and whatever mends it ends anywhere: what was hit is named and nothing else is lost.

        A backup goes on having all of it, and gives it back. So does one that is brought up to date before anybody
        mends, with packs made since of what it had.
        """
        unnoticed = self._dice.random() < 0.5
        if unnoticed:
            self._push()
        assert not self._store.backup(self._copy).damaged
        if unnoticed:  # what the backup has is moved, away from what nobody needs any more
            self._delete()
            self._collect()
        contents = {Digest.of(data): data for data in self._promised.values()}
        named = rot(self._store, self._root, contents, self._dice, self._tally)
        self._spoilt = True
        if unnoticed:
            self._back_up_rot(contents)
        self._end(lambda: self._store.repair(Depth.DEEP))
        assert wrong(self._store, contents) <= named
        if self._dice.random() < 0.3:
            self._store.backup(self._copy)
            self._see_copy(contents)
        report = self._store.repair(Depth.DEEP)
        lost = set(report.lost)
        assert {finding.check for finding in unmended(report)} <= {"lost"}, report.left
        assert wrong(self._store, contents) == lost <= named
        if self._dice.random() < 0.5:
            self._collect()
        self._end(lambda: self._store.backup(self._copy))
        self._see_copy(contents)
        copied = self._store.backup(self._copy)
        assert (copied.damaged, copied.lost, set(copied.kept)) == ([], [], lost)
        self._end(self._recover)
        assert wrong(self._store, contents) <= lost
        back = self._recover()
        assert (back.lost, unmended(back)) == ((), []), back
        self._collect()
        assert list(self._store.check(Depth.DEEP)) == []
        self._see_copy(contents)
        assert not self._store.backup(self._copy).kept
        self._tally.add(WORK, f"packs that rotted, mended from a backup{'' if lost else '; nothing was lost'}")

    def _back_up_rot(self, contents: Contents) -> None:
        self._end(lambda: self._store.backup(self._copy))
        self._see_copy(contents)
        copied = self._store.backup(self._copy)
        assert (copied.lost, copied.kept, copied.spoilt) == ([], [], [])
        self._see_copy(contents)
        what = "; it spared some" if copied.spared else ""
        self._tally.add(WORK, f"packs that rotted unnoticed before a backup{what}")

    def _recover(self) -> RepairReport:
        with Store.open(self._copy, SMALL, reading=True) as other:
            return self._store.repair(Depth.DEEP, other=other.reader)

    def _see_copy(self, contents: Contents) -> None:
        """Whatever became of the last backup, one has all of it."""
        seen = self._folder / "seen"
        shutil.copytree(self._copy, seen)
        with Store.open(seen, SMALL) as store:
            assert not wrong(store, contents), "the backup does not have it any more"
        shutil.rmtree(seen)

    def _any_work(self) -> Callable[[], None]:
        return self._dice.choice((self._push, self._push, self._push, self._delete, self._move, self._collect))

    # What operators do.

    def _collect(self) -> None:
        self._tally.add(WORK, "collections")
        self._store.collect(wait_s=5)
        self._store.compact(everything=True)

    def _rebuild(self) -> None:
        """Make the index anew; where records of the journal were damaged, it may say which are missing."""
        self._tally.add(WORK, "rebuilds")
        before = dump(self._store)
        self._store.close()
        shutil.rmtree(self._root / "index")
        report = rebuild_index(self._root, SMALL)
        told = [line for line in report.damaged if not (self._spoilt and line.startswith("journal records "))]
        assert not told, told
        self._open()
        changed = differences(before, self._dump())
        assert not changed, changed

    def _back_up(self) -> None:
        self._tally.add(WORK, "backups restored")
        report = self._store.backup(self._copy)
        assert not report.damaged, report.damaged
        restored = self._folder / "restored"
        restore(self._copy, restored, SMALL)
        with Store.open(restored, SMALL) as store:
            changed = differences(self._dump(), dump(store))
            assert not changed, changed
            assert list(store.check(Depth.DEEP)) == []
        shutil.rmtree(restored)

    def _dump(self) -> Dump:
        return dump(self._store)

    @staticmethod
    def _record(name: str, data: bytes) -> Record:
        return Record(name.encode(), (Digest.of(data),), len(data))

    def _record_or_none(self, name: str, data: bytes | None) -> Record | None:
        return None if data is None else self._record(name, data)

    def _look(self) -> None:
        there = {name.path: record for name, record in self._store.scan("thing")}
        assert there == {name: self._record(name, data) for name, data in self._promised.items()}
        self._pull()
