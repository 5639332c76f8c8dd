"""Answers that are given again: which, for how long, and how many are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from api.basis import Basis
from api.repeats import Found, Fresh, Repeats
from cas import FileRange

ROOM = 64_000
HEAD = b"HTTP/1.1 200 \r\ncontent-length: 4\r\ndate: Sat, 28 Nov 2026 22:00:00 GMT\r\nvary: x\r\n\r\n"
ANSWER = HEAD + b"body"


@dataclass
class Store:
    """What moves on; a change may leave alone what answers are made of."""

    moment: int | None = 7
    now: float = 1_795_437_699.0
    is_same: bool = False
    looks: int = 0

    def kept(self, most_bytes: int = ROOM) -> Repeats:
        return Repeats(most_bytes, lambda: self.moment, lambda: self.now)

    def basis(self, moment: int = 7) -> Basis:
        return Basis(moment, self.anew)

    def anew(self) -> int | None:
        self.looks += 1
        return self.moment if self.is_same else None


@pytest.fixture
def store() -> Store:
    return Store()


def test_a_kept_answer_is_given_with_the_date_of_now(store: Store) -> None:
    """Which is written anew every second."""
    repeats = store.kept()
    repeats.keep(b"GET /", ANSWER, store.basis())
    assert repeats.find(b"GET /") == Found(
        ANSWER.replace(b"22:00:00", b"12:41:39").replace(b"Sat, 28", b"Mon, 23"), None
    )
    store.now += 1
    later = repeats.find(b"GET /")
    assert later is not None
    assert b" 12:41:40 GMT\r\n" in later.said


def test_a_word_that_is_to_be_another_each_time_is_made_each_time(store: Store) -> None:
    """Wherever it stands, and nothing else is."""
    repeats, words = store.kept(), iter([b"second", b"third.", b"never."])
    head = HEAD.replace(b"vary: x", b"location: /first./x\r\nuuid: first.")
    repeats.keep(b"POST /", head, store.basis(), fresh=Fresh(b"first.", lambda: next(words)))
    for word in (b"second", b"third."):
        found = repeats.find(b"POST /")
        assert found is not None
        assert b"location: /" + word + b"/x\r\nuuid: " + word + b"\r\n" in found.said
        assert b"first." not in found.said
    store.moment = 8
    assert repeats.find(b"POST /") is None
    assert next(words) == b"never."


def test_only_the_same_question_has_the_answer(store: Store) -> None:
    """Not a longer one, not none."""
    repeats = store.kept()
    repeats.keep(b"GET /", ANSWER, store.basis())
    assert repeats.find(b"GET /x") is None
    assert repeats.find(b"") is None


def test_no_answer_outlives_what_it_was_made_of(store: Store) -> None:
    """Not even when the moment cannot be told for a while."""
    for later in (8, None):
        repeats = store.kept()
        repeats.keep(b"GET /", ANSWER, store.basis())
        store.moment = later
        assert repeats.find(b"GET /") is None
        store.moment = 7
        assert repeats.find(b"GET /") is None


def test_a_change_of_something_else_ends_no_answer(store: Store) -> None:
    """What it was made of is looked at once a change, and not while nothing changes."""
    repeats, store.is_same = store.kept(), True
    repeats.keep(b"GET /", ANSWER, store.basis())
    for store.moment in (7, 8, 8, 9):
        assert repeats.find(b"GET /") is not None
    assert store.looks == 2


def test_an_answer_of_the_past_is_looked_at_again_before_it_is_given(store: Store) -> None:
    """A read that began before a change may be answered after one that began later."""
    store.moment = 8
    repeats = store.kept()
    repeats.keep(b"GET /new", ANSWER, store.basis(8))
    repeats.keep(b"GET /old", ANSWER, store.basis(7))
    assert repeats.find(b"GET /old") is None
    assert repeats.find(b"GET /new") is not None
    assert store.looks == 1


def test_what_nobody_asked_for_in_a_minute_is_not_looked_up_by_the_loop(store: Store) -> None:
    """Its rows may lie on the disk alone by now, and everybody would wait for them."""
    store.is_same = True
    for idle, is_given in ((59, True), (61, False), (-1, False)):
        store.moment, store.looks = 7, 0
        repeats = store.kept()
        repeats.keep(b"GET /", ANSWER, store.basis())
        store.moment = 8
        store.now += idle
        assert (repeats.find(b"GET /") is not None, store.looks) == (is_given, is_given)


def test_an_answer_takes_the_place_of_an_earlier_one(store: Store) -> None:
    """And no more room than one."""
    repeats = store.kept()
    for number in range(1000):
        repeats.keep(b"GET /", HEAD + b"%04d" % number, store.basis())
    repeats.keep(b"GET /other", ANSWER, store.basis())
    found = repeats.find(b"GET /")
    assert found is not None
    assert found.said.endswith(b"0999")


def test_what_is_kept_is_bounded_and_the_oldest_go_first(store: Store) -> None:
    """Questions and answers together, and what it takes to keep them."""
    repeats = store.kept()
    for number in range(1000):
        repeats.keep(b"GET /%d" % number, ANSWER, store.basis())
    there = [number for number in range(1000) if repeats.find(b"GET /%d" % number) is not None]
    assert there == list(range(1000 - len(there), 1000))
    assert 80 < len(there) < ROOM // len(ANSWER)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"GET /" + b"x" * 5000, ANSWER),
        (b"GET /", HEAD + b"x" * (ROOM // 8)),
        (b"GET /", b"HTTP/1.1 200 \r\ncontent-length: 4\r\n\r\nbody"),
        (b"GET /", b"HTTP/1.1 200 \r\ncontent-length: 40\r\n\r\nbody\r\ndate: Sat, 28 Nov 2026 22:00:00 GMT\r\n"),
    ],
    ids=["long question", "large answer", "no date", "date in the body"],
)
def test_what_would_be_too_much_or_cannot_be_dated_is_not_kept(store: Store, question: bytes, answer: bytes) -> None:
    """One answer has no more than a sixteenth of the room."""
    repeats = store.kept()
    repeats.keep(question, answer, store.basis())
    assert repeats.find(question) is None


class Body:
    """Files that count who has them."""

    def __init__(self) -> None:
        self.open, self.is_there = 0, True
        self.then: Callable[[], None] = lambda: None

    def again(self) -> Body | None:
        self.open += self.is_there
        self.then()
        return self if self.is_there else None

    def pieces(self) -> list[FileRange]:
        return [FileRange(1, 2, 3)]

    def ends_early(self, fd: int, missing: int, /) -> None:
        raise AssertionError("nothing is sent")

    def close(self) -> None:
        self.open -= 1


def test_files_are_had_anew_each_time_and_by_whoever_asked_alone(store: Store) -> None:
    """What is only kept holds no file."""
    repeats, body = store.kept(16 * ROOM), Body()
    repeats.keep(b"GET /", HEAD, store.basis(), body.again)
    assert body.open == 0
    for number in (1, 2):
        found = repeats.find(b"GET /")
        assert found is not None
        assert (found.files, body.open) == (body, number)


def test_files_that_are_not_to_be_had_are_asked_for_anew(store: Store) -> None:
    """The answer stays: they may be open again after that."""
    repeats, body = store.kept(16 * ROOM), Body()
    repeats.keep(b"GET /", HEAD, store.basis(), body.again)
    body.is_there = False
    assert repeats.find(b"GET /") is None
    body.is_there = True
    assert repeats.find(b"GET /") is not None


def test_a_change_while_files_are_taken_ends_the_answer_and_lets_them_go(store: Store) -> None:
    """The moment is looked at last: one seen before is worth nothing."""
    repeats, body = store.kept(16 * ROOM), Body()
    repeats.keep(b"GET /", HEAD, store.basis(), body.again)
    body.then = lambda: setattr(store, "moment", 8)
    assert repeats.find(b"GET /") is None
    assert body.open == 0
    store.moment = 7
    assert repeats.find(b"GET /") is None


def test_the_way_to_files_takes_room_too(store: Store) -> None:
    """Few answers of files fit where many of bytes do."""
    repeats = store.kept(2 * ROOM)
    for number in range(100):
        repeats.keep(b"GET /%d" % number, HEAD, store.basis(), Body().again)
    assert sum(repeats.find(b"GET /%d" % number) is not None for number in range(100)) < 2 * ROOM // 4096


def test_without_room_nothing_is_kept(store: Store) -> None:
    """This is how it is switched off."""
    repeats = store.kept(0)
    repeats.keep(b"GET /", ANSWER, store.basis())
    assert repeats.find(b"GET /") is None
