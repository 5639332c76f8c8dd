"""Buffers of windows: used again, and no larger than what uploads need that come together."""

from __future__ import annotations

import gc
import mmap
import re
from pathlib import Path

from cas.window import Spares, Window

MIB = 1 << 20


def resident() -> int:
    """Count the bytes of such memory that this process has."""
    gc.collect()  # of what other tests left
    (line,) = re.findall(r"RssShmem:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(line) << 10


def filled() -> tuple[Spares, list[mmap.mmap]]:
    """Take four buffers, and use all of each."""
    spares = Spares(8)
    taken = [buffer for _ in range(4) if isinstance(buffer := spares.take(5 * MIB), mmap.mmap)]
    for buffer in taken:
        buffer[:] = bytes(len(buffer))
    return spares, taken


def test_of_many_buffers_that_are_free_two_keep_all_they_have() -> None:
    """A lone upload finds its own again; of the others only what a window has while there are many stays."""
    before = resident()
    spares, taken = filled()
    assert resident() - before == 20 * MIB
    for buffer in taken:
        spares.give_back(buffer)
    assert resident() - before == (2 * 5 + 2 * 2) * MIB


def test_a_window_in_a_buffer_that_was_used_holds_what_is_put_there() -> None:
    """Whatever was given back to the kernel meanwhile."""
    spares, taken = filled()
    for buffer in taken:
        spares.give_back(buffer)
    data = [bytes([number]) * (4 * MIB) for number in range(4)]
    windows = [Window(spares) for _ in data]
    for window, piece in zip(windows, data, strict=True):
        window.add(piece, expected=4 * MIB)
    assert [bytes(window.view()) for window in windows] == data


def test_what_comes_ahead_stands_behind_what_is_left_and_leaves_the_dropped_alone() -> None:
    """Until more is asked for, whoever looks at the bytes before still sees them."""
    window = Window(Spares(2))
    window.add(b"a" * MIB + b"bc", expected=4 * MIB)
    before = window.view()
    window.ahead(4)[:] = b"defg"
    window.drop(MIB)
    assert bytes(window.go_on(3)) == b"def"
    assert bytes(window.view()) == b"bcdef"
    assert bytes(before) == b"a" * MIB + b"bc"
    window.ahead(2)[:] = b"gh"
    window.drop(4)
    window.go_on(2)
    window.add(b"i", expected=4 * MIB)
    assert bytes(window.view()) == b"fghi"


def test_the_second_buffer_goes_back_once_bytes_come_in_their_turn() -> None:
    """A worker in which more uploads began would else keep one for each until that is over."""
    spares = Spares(8)
    window = Window(spares)
    window.ahead(4 * MIB)
    window.go_on(4 * MIB)
    window.ahead(4 * MIB)[:] = b"a" * (4 * MIB)
    window.drop(4 * MIB)
    window.go_on(4 * MIB)
    free = len(spares._free)  # noqa: SLF001 - what is free is seen by nobody else
    window.drop(4 * MIB - 1)
    window.add(b"b", expected=4 * MIB)
    assert len(spares._free) == free + 1  # noqa: SLF001
    assert bytes(window.view()) == b"ab"


def test_a_window_is_alone_while_no_other_one_is_open() -> None:
    """However often the others are cleared."""
    spares, seen = Spares(2), list[bool]()
    first, second = Window(spares), Window(spares)
    for work in (bool, second.clear, second.clear, lambda: Window(spares)):
        work()
        seen.append(first.is_alone)
    assert seen == [False, True, True, False]
