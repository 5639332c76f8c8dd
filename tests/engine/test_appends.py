"""New bytes on their way into a pack: in order, early, and none behind one that could not be written."""

# ruff: noqa: SLF001 - the pack on loan is looked at from inside

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas import Digest, NoSpace, Store
from cas.appends import Appends
from cas.disk import Disk
from cas.records import Body
from tests.support.engine import KIB, MIB, SMALL, noise

PATIENCE_S = 60
NOISE = noise(42 * KIB)


class Filling(Disk):
    """A disk that is slow, and full once it is asked to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.is_full = True
        self.asked = 0

    def write_direct(self, fd: int, direct: int, data: memoryview, offset: int) -> None:
        self.asked += 1
        assert self.go_on.wait(PATIENCE_S)
        if self.is_full:
            raise NoSpace("planted")
        super().write_direct(fd, direct, data, offset)


class Watching(Disk):
    """A disk that notes when bytes are sent to it early."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    def begin_sync(self, fd: int, offset: int, size: int) -> None:
        self.events.append("sent")
        super().begin_sync(fd, offset, size)


class Hearing:
    """A hash that notes when it is fed."""

    def __init__(self, events: list[str]) -> None:
        self.events, self.state = events, hashlib.sha256()

    def update(self, data: bytes, /) -> None:
        self.events.append(f"hashed {len(data)}")
        self.state.update(data)

    def digest(self) -> bytes:
        return self.state.digest()


def test_what_waits_behind_a_window_that_could_not_be_written_is_not_written(tmp_path: Path) -> None:
    """No window and no record: the pack ends where it ended, and goes on there once there is room."""
    disk, datas = Filling(), [noise(64 * KIB, seed) for seed in range(3)]
    with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
        appends = Appends(store._parts)
        start = appends.lend().end
        for data in datas[:2]:
            appends.gather(data)
            appends.hand_over(aside=True, past_cache=True)
        _, written = appends.commit(Body())
        disk.go_on.set()
        assert written is not None
        with pytest.raises(NoSpace):
            written.result(PATIENCE_S)
        with pytest.raises(NoSpace):
            appends.settle()
        appends.roll_back()
        assert (disk.asked, appends.lend().end) == (1, start)
        disk.is_full = False
        assert appends.gather(datas[2]) == (appends.lend().pack, start)
        appends.hand_over(aside=True, past_cache=True)
        appends.settle()
        assert store._parts.layout.pack(appends.lend().pack).read_bytes()[start:] == datas[2]
        end, _ = appends.commit(Body())
        appends.roll_back()
        assert appends.lend().end == end, "what a record stands on stays"
        appends.release()


WINDOWS = st.lists(st.tuples(st.lists(st.integers(1, 40_000), max_size=3), st.booleans(), st.booleans()), max_size=8)


@given(windows=WINDOWS)
def lie_in_order(store: Store, windows: list[tuple[list[int], bool, bool]]) -> None:
    """Hand windows over, each aside or not, past the page cache or not."""
    appends = Appends(store._parts)
    start, whole = appends.lend().end, b""
    for sizes, aside, past_cache in windows:
        for size in sizes:
            data = NOISE[len(whole) % 1000 :][:size]
            assert appends.gather(data) == (appends.lend().pack, start + len(whole))
            whole += data
        appends.hand_over(aside=aside, past_cache=past_cache)
    appends.settle()
    assert store._parts.layout.pack(appends.lend().pack).read_bytes()[start:] == whole
    appends.roll_back()
    assert appends.lend().end == start
    appends.release()


def test_windows_lie_in_the_order_they_were_handed_over_in(tmp_path: Path) -> None:
    """Whichever of them were written aside, and past the page cache."""
    with Store.open(tmp_path, SMALL, create=True) as store:
        lie_in_order(store)


def test_a_blob_that_came_whole_is_on_its_way_to_the_disk_while_it_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lone client waits for the longer of the two, and not for one after the other."""
    events, data = list[str](), noise(512 * KIB, 4)

    def read(into: memoryview) -> int:
        into[:] = data
        return len(into)

    with Store.open(tmp_path, create=True, disk=Watching(events)) as store:
        with store.upload() as upload:
            monkeypatch.setattr(upload._inflow.running, "state", Hearing(events))
            assert upload.draw(read, len(data), MIB) == len(data)
            upload.finish(Digest.of(data))
        assert events == ["sent", f"hashed {len(data)}"]
