"""Any order of requests on sessions, right and wrong, beside a model of a few lines: what is held, what is a blob."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.support.engine import SMALL
from tests.wire.v2.pushing import Client, Pushed, code, held, new_data, new_repository, pushing, sha256, sha512

# Around every limit of the engine that a body of this size can meet.
SIZES = st.sampled_from([0, 1, 500, 1024, 1025, 5000, 97 * 1024, 150_000])


@contextmanager
def running() -> Iterator[Pushed]:
    with TemporaryDirectory() as folder, pushing(Path(folder) / "root", engine=SMALL) as registry:
        yield registry


class Sessions(RuleBasedStateMachine):
    """Bytes in sessions and blobs; a session that is over is None."""

    registry: Pushed
    places = Bundle("places")

    @initialize()
    def begin(self) -> None:
        self.client: Client = self.registry.client()
        self.repository = new_repository()
        self.held: dict[str, bytes | None] = {}
        self.closed: dict[str, str] = {}
        self.blobs: dict[str, bytes] = {}

    def teardown(self) -> None:
        self.client.close()

    @rule(target=places)
    def open(self) -> str:
        place = self.client.open(self.repository)
        self.held[place] = b""
        return place

    @rule(place=places, size=SIZES, ranged=st.booleans())
    def patch(self, place: str, size: int, ranged: bool) -> None:
        before, data = self.held[place], new_data(size)
        at = len(before or b"")
        answer = self.client.patch(place, data, **({"Content_Range": f"{at}-{at + size - 1}"} if ranged else {}))
        if before is None:
            assert (answer.status_code, code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")
        else:
            assert (answer.status_code, held(answer)) == (202, at + size)
            self.held[place] = before + data

    @rule(place=places, size=SIZES, off=st.sampled_from([-1, 1, 7]))
    def patch_elsewhere(self, place: str, size: int, off: int) -> None:
        before = self.held[place]
        at = abs(len(before or b"") + off)
        answer = self.client.patch(place, new_data(size), Content_Range=f"{at}-{at + size - 1}")
        if before is None:
            assert answer.status_code == 404
        else:
            assert (answer.status_code, held(answer)) == (416, len(before))

    @rule(place=places, size=SIZES, longer=st.booleans())
    def close(self, place: str, size: int, longer: bool) -> None:
        before, data = self.held[place], new_data(size)
        whole = (before or b"") + data
        digest = sha512(whole) if longer else sha256(whole)
        answer = self.client.put(place, digest, data)
        if before is None:
            is_repeated = self.closed.get(place) == digest and digest in self.blobs
            assert answer.status_code == (201 if is_repeated else 404)
            return
        assert answer.status_code == 201, answer.text
        self.held[place], self.closed[place], self.blobs[digest] = None, digest, whole

    @rule(place=places)
    def close_wrongly(self, place: str) -> None:
        answer = self.client.put(place, sha256(new_data(100)))
        assert answer.status_code == (404 if self.held[place] is None else 400)
        self.held[place] = None

    @rule(place=places)
    def repeat_the_close(self, place: str) -> None:
        if place in self.closed:
            there = self.closed[place] in self.blobs
            assert self.client.put(place, self.closed[place]).status_code == (201 if there else 404)

    @rule(place=places)
    def cancel(self, place: str) -> None:
        answer = self.client.ask("DELETE", place)
        assert answer.status_code == (404 if self.held[place] is None else 204)
        self.held[place] = None

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if self.blobs:
            digest = data.draw(st.sampled_from(sorted(self.blobs)))
            assert self.client.blob(self.repository, digest, "DELETE").status_code == 202
            del self.blobs[digest]

    @invariant()
    def everything_is_as_it_was_answered(self) -> None:
        for place, data in getattr(self, "held", {}).items():
            answer = self.client.ask("GET", place)
            assert answer.status_code == (404 if data is None else 204)
            assert data is None or held(answer) == len(data)
        for digest, data in getattr(self, "blobs", {}).items():
            assert self.client.blob(self.repository, digest).content == data


def test_sessions_do_as_they_say_in_any_order() -> None:
    """Ranges are exact after every request, refused ones change nothing, and closed blobs have their bytes."""
    with running() as registry:
        Sessions.registry = registry
        run_state_machine_as_test(Sessions, settings=settings(max_examples=30, stateful_step_count=20))
