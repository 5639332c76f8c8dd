"""A seeded campaign against the engine: `make crash [ROUNDS=500] [SEED=n]`; a round's seed replays it (I1 to I4, I8).

Each round is a store of its own, loaded at random while the power goes and the disk fails at random operations, while
collections and compactions run, and while the index is rebuilt. A model knows what was acknowledged.
"""

from __future__ import annotations

import faulthandler
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cas import CasError, Depth, Digest, Name, NoSpace, Record, Store, rebuild_index
from cas.errors import DiskFailed
from tests.support.engine import KIB, SMALL, noise, prose, push, read
from tests.support.powercut import ForgetfulDisk, PowerCut, pull_the_plug

STEPS = 12
ROUND_S = 60  # a round takes less than a second; one that hangs is ended with all stacks
_NAMES = ("a", "b", "c", "d")
_PIECES = [noise(30 * KIB + 9 * KIB * n, n) for n in range(6)] + [prose(90 * KIB, n) for n in range(2)]


@dataclass(slots=True)
class Tally:
    """What a campaign did."""

    rounds: int = 0
    cuts: int = 0
    faults: int = 0
    collections: int = 0
    rebuilds: int = 0

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.cuts} power cuts, {self.faults} faults, "
            f"{self.collections} collections, {self.rebuilds} rebuilds"
        )


class EngineRound:
    """One store, its random load, and the model of what it acknowledged."""

    def __init__(self, root: Path, seed: int, tally: Tally, *, honest: bool = True) -> None:
        self._root, self._dice, self._tally, self._honest = root, random.Random(seed), tally, honest
        self._promised: dict[str, bytes] = {}
        self._open()

    def run(self) -> None:
        """Do random steps, look after each, and leave no store open."""
        steps = (self._push, self._delete, self._cut, self._cut, self._fail, self._fail, self._collect, self._rebuild)
        try:
            for _ in range(STEPS):
                self._dice.choice(steps)()
                self._look()
            self._collect()
            self._look()
            findings = list(self._store.check(Depth.DEEP))
            assert not findings, findings
        finally:
            self._disk.cut_after = self._disk.fail_after = None
            self._store.close()

    def _open(self) -> None:
        self._disk = ForgetfulDisk(self._dice.getrandbits(30), honest=self._honest)
        self._store = Store.open(self._root, SMALL, create=True, disk=self._disk)

    def _content(self) -> bytes:
        return b"".join(self._dice.choices(_PIECES, k=self._dice.randint(1, 4)))[self._dice.randrange(2000) :]

    def _push(self) -> None:
        name, data = self._dice.choice(_NAMES), self._content()
        before = self._promised.get(name)
        try:
            push(self._store, name, data)
        except BaseException:
            self._doubt = (name, before, data)
            raise
        self._promised[name] = data

    def _delete(self) -> None:
        name = self._dice.choice(_NAMES)
        assert self._store.change(lambda edits: edits.delete(Name("thing", name))) == (name in self._promised)
        self._promised.pop(name, None)

    def _settle_doubt(self) -> None:
        """A push without an answer may have happened or not, but nothing between."""
        name, before, after = self._doubt
        record = self._store.get(Name("thing", name))
        kept = next((c for c in (before, after) if record == self._record(name, c)), b"neither")
        assert kept != b"neither", f"{name} is neither what it was nor what was pushed"
        self._promised.pop(name, None)
        if kept is not None:
            self._promised[name] = kept

    @staticmethod
    def _record(name: str, data: bytes | None) -> Record | None:
        return None if data is None else Record(name.encode(), (Digest.of(data),), len(data))

    def _cut(self) -> None:
        """The power goes at a random operation of a push, a collection or a compaction."""
        self._tally.cuts += 1
        self._disk.cut_after = self._dice.randrange(16)
        doubtful = self._interrupted()
        pull_the_plug(self._store, self._disk)
        self._open()
        if doubtful:
            self._settle_doubt()

    def _fail(self) -> None:
        """One operation of the disk fails; the store is opened anew, since two make it read-only."""
        self._tally.faults += 1
        self._disk.fail_after = self._dice.randrange(16)
        self._disk.failure = self._dice.choice((DiskFailed, NoSpace))
        doubtful = self._interrupted()
        self._disk.fail_after = None
        self._store.close()
        self._open()
        if doubtful:
            self._settle_doubt()

    def _interrupted(self) -> bool:
        work = self._dice.choice((self._push, self._push, self._collect))
        try:
            work()
        except (PowerCut, CasError):
            return work == self._push
        return False

    def _collect(self) -> None:
        self._tally.collections += 1
        self._store.collect(wait_s=5)
        self._store.compact(everything=True)

    def _rebuild(self) -> None:
        self._tally.rebuilds += 1
        self._store.close()
        shutil.rmtree(self._root / "index")
        report = rebuild_index(self._root, SMALL)
        assert not report.damaged, report.damaged
        self._open()

    def _look(self) -> None:
        there = {name.path: record for name, record in self._store.scan("thing")}
        assert there == {name: self._record(name, data) for name, data in self._promised.items()}
        for data in self._promised.values():
            assert read(self._store, Digest.of(data)) == data


def run(seed: int, tally: Tally, *, honest: bool = True) -> None:
    """Run one round in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="cas-campaign-") as folder:
        EngineRound(Path(folder) / "root", seed, tally, honest=honest).run()
    tally.rounds += 1


def main() -> None:
    """Run ROUNDS rounds from SEED on; the first broken promise ends the campaign, with its seed."""
    rounds, first = int(sys.argv[1]), int(sys.argv[2])
    tally, began = Tally(), time.monotonic()
    for seed in range(first, first + rounds):
        faulthandler.dump_traceback_later(ROUND_S, exit=True)
        sys.stderr.write(f"seed {seed}\n")
        try:
            run(seed, tally)
        except BaseException:
            sys.stderr.write(f"seed {seed} broke a promise; replay: make crash SEED={seed} ROUNDS=1\n")
            raise
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.write(f"{tally}, 0 losses in {time.monotonic() - began:.0f} s; seeds {first} to {first + rounds - 1}\n")


if __name__ == "__main__":
    main()
