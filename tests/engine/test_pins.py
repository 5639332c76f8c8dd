"""Pins: nothing is taken while somebody may still rely on it, and nobody who is gone holds anything."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cas import Digest, Missing, Store
from cas.parts import Parts
from cas.pins import advance
from tests.support.engine import KIB, noise, opened, push, stage
from tests.support.processes import start_python

HOLDS = """
import sys
from pathlib import Path
from cas import Store
from tests.support.engine import SMALL
store = Store.open(Path(sys.argv[1]), SMALL)
pin = store._parts.pins.take()
print("held", flush=True)
sys.stdin.readline()
"""


def next_epoch(store: Store) -> int:
    """Begin a new epoch."""
    parts: Parts = store._parts
    return int(parts.committer.run(lambda edit, _: advance(edit)))


def is_quiet(store: Store) -> bool:
    """Whether nobody relies on what was there until now."""
    return store._parts.pins.quiet(next_epoch(store), 0)


def test_a_blob_that_is_missing_leaves_no_pin_in_its_error(tmp_path: Path) -> None:
    """However long somebody holds on to that: no collection waits for it."""
    with opened(tmp_path) as store:
        with pytest.raises(Missing) as held:
            store.reader(Digest.of(b"nowhere"))
        assert held.value is not None
        assert store._parts.pins._held == {}


def test_a_push_that_was_refused_in_its_change_leaves_no_pin_in_its_error(tmp_path: Path) -> None:
    """Stored before or not: a repair that comes then need not wait until that is forgotten."""

    def refuse(*_: object) -> None:
        raise ValueError

    with opened(tmp_path) as store:
        push(store, "a", noise(300 * KIB))
        for data in (noise(300 * KIB), noise(300 * KIB, 1)):
            with pytest.raises(ValueError) as held, store.upload() as upload:  # noqa: PT011, PT012 - one's own
                upload.write(data)
                upload.keep(None, refuse)
            assert held.value is not None
            assert is_quiet(store)


def test_it_is_quiet_once_the_last_of_several_pins_is_released(tmp_path: Path) -> None:
    """Pins of one epoch share one lock, which goes with the last of them; released twice is once."""
    with opened(tmp_path) as store:
        assert is_quiet(store)
        first, second = store._parts.pins.take(), store._parts.pins.take()
        assert not is_quiet(store)
        first.release()
        first.release()
        assert not is_quiet(store)
        second.release()
        assert is_quiet(store)


def test_only_pins_of_earlier_epochs_count(tmp_path: Path) -> None:
    """Who began after something was hidden cannot have found it."""
    with opened(tmp_path) as store:
        epoch = next_epoch(store)
        with_it = store._parts.pins.take()
        assert with_it.epoch == epoch
        assert store._parts.pins.quiet(epoch, 0)
        assert not is_quiet(store)
        with_it.release()


def test_a_pin_that_is_forgotten_is_released(tmp_path: Path) -> None:
    """Readers and staged blobs that nobody closes hold nobody up for longer than they exist."""
    with opened(tmp_path) as store:
        digest = push(store, "a", noise(300 * KIB))
        reader = store.reader(digest)
        staged = stage(store, noise(300 * KIB, 1))
        assert not is_quiet(store)
        del reader, staged
        assert is_quiet(store)


def test_another_process_is_waited_for_until_it_dies(tmp_path: Path) -> None:
    """A stopped process holds what it held; one that was killed holds nothing (I7)."""
    with opened(tmp_path) as store:
        other = start_python(HOLDS, tmp_path)
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        os.kill(other.pid, signal.SIGSTOP)
        assert not is_quiet(store)
        other.kill()
        other.communicate()
        assert is_quiet(store)


def test_nothing_is_held_when_everything_is_done(tmp_path: Path) -> None:
    """Pushes of every size, pulls, refusals and suspended uploads give back what they held."""
    with opened(tmp_path) as store:
        for size in (10, 50 * KIB, 300 * KIB):
            digest = push(store, str(size), noise(size))
            with store.reader(digest) as reader:
                reader.read()
            upload = store.resume(size)
            upload.write(noise(size, 2))
            upload.suspend()
            with store.upload() as dropped:
                dropped.write(noise(size, 3))
            assert is_quiet(store)
