"""Random pushes, deletes, pulls and collections, one into the other: a dict says what must be there."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas import Digest, Name, Names, Reader, Record, Staged, Store
from cas.receive import Upload
from tests.engine.test_collect import contents
from tests.support.engine import KIB, opened, prose

PIECES = [prose(90 * KIB, seed) for seed in range(4)]
PATHS = ["a", "b", "c"]


class Play:
    """A store, what must be in it, and uploads and readers that stand in the middle."""

    def __init__(self, store: Store, dice: random.Random) -> None:
        self.store, self.dice = store, dice
        self.named: dict[str, bytes] = {}
        self.uploads: list[tuple[Upload, bytes]] = []
        self.readers: list[tuple[Reader, bytes]] = []

    def act(self) -> None:
        """Do something at random."""
        self.dice.choice([self.begin, self.begin, self.end, self.end, self.delete, self.open, self.read])()

    def begin(self) -> None:
        """Push something, perhaps not to its end."""
        data = b"".join(self.dice.sample(PIECES, self.dice.randint(1, 3)))
        resumable = self.dice.random() < 0.5
        upload = self.store.resume(self.dice.getrandbits(63)) if resumable else self.store.upload()
        upload.write(data[: self.dice.randint(1, len(data))])
        self.uploads.append((upload, data))

    def end(self) -> None:
        """Go on with a push and keep it under a name, or give it up."""
        if not self.uploads:
            return
        upload, data = self.uploads.pop(self.dice.randrange(len(self.uploads)))
        upload.write(data[upload.size :])
        if self.dice.random() < 0.2:
            upload.discard()
            return
        path = self.dice.choice(PATHS)

        def edit(names: Names, staged: Staged) -> None:
            names.put(Name("thing", path), Record(b"", (staged.digest,), staged.size))

        upload.keep(Digest.of(data), edit)
        self.named[path] = data

    def delete(self) -> None:
        """Delete a name."""
        path = self.dice.choice(PATHS)
        self.store.change(lambda names: names.delete(Name("thing", path)))
        self.named.pop(path, None)

    def open(self) -> None:
        """Begin to read something."""
        for data in self.named.values():
            self.readers.append((self.store.reader(Digest.of(data)), data))
            return

    def read(self) -> None:
        """Read something to its end."""
        for reader, data in self.readers:
            with reader:
                assert reader.read() == data
        self.readers.clear()

    def finish(self) -> None:
        """End everything, collect, and compare the whole store with what must be there."""
        self.read()
        for upload, _ in self.uploads:
            upload.discard()
        self.store.expire_uploads(float("inf"), float("inf"))
        assert not self.store.collect().unfinished
        for data in self.named.values():
            with self.store.reader(Digest.of(data)) as reader:
                assert reader.read() == data
        assert contents(self.store)[0] == len(set(self.named.values()))


@given(st.integers(0, 1 << 32))
@settings(max_examples=25, deadline=None)
def test_whatever_happens_between_its_steps_nothing_is_lost_or_left(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Between any two steps of several collections something else goes on; the dict and the store agree."""
    dice = random.Random(seed)
    with opened(tmp_path_factory.mktemp("play")) as store:
        play = Play(store, dice)
        for _ in range(3):
            play.act()
            store.collect(wait_s=0, progress=lambda: play.act() if dice.random() < 0.3 else None)
        play.finish()


def test_pushes_beside_endless_collections_all_succeed(tmp_path: Path) -> None:
    """Four threads push, read and delete overlapping blobs while a fifth collects without a pause."""
    over = threading.Event()

    def collecting(store: Store) -> Iterator[str]:
        while not over.is_set():
            yield store.collect(wait_s=0.05).unfinished

    def pushing(store: Store, seed: int) -> None:
        dice = random.Random(seed)
        name = Name("thing", f"{seed}")

        def edit(names: Names, staged: Staged) -> None:
            names.put(name, Record(b"", (staged.digest,), staged.size))

        for turn in range(25):
            data = b"".join(dice.sample(PIECES, 2))
            with store.upload() as upload:
                for start in range(0, len(data), 32 * KIB):
                    upload.write(data[start : start + 32 * KIB])
                upload.keep(Digest.of(data), edit)
            with store.reader(Digest.of(data)) as reader:
                assert reader.read() == data
            if turn % 3:
                store.change(lambda names: names.delete(name))

    with opened(tmp_path) as store, ThreadPoolExecutor(5) as pool:
        collected = pool.submit(lambda: list(collecting(store)))
        try:
            for pushed in [pool.submit(pushing, store, seed) for seed in range(4)]:
                pushed.result()
        finally:
            over.set()
        assert collected.result()
        assert not store.collect().unfinished
        contents(store)
