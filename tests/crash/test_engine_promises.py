"""The engine against a dictionary, through reopenings, refusals, disk errors, power cuts and rebuilds (I1 to I4).

`pytest tests/crash/test_engine_promises.py --hypothesis-profile=nightly` searches for as long as you like.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cas import (
    CasError,
    Digest,
    DiskFailed,
    EngineSettings,
    Name,
    Names,
    NoSpace,
    Record,
    Staged,
    Store,
    Superseded,
    rebuild_index,
)
from tests.support.powercut import ForgetfulDisk, PowerCut, pull_the_plug

SMALL = EngineSettings(
    inline_bytes=1024,
    run_bytes=96 * 1024,
    segment_chunks=4,
    pack_bytes=400 * 1024,
    map_bytes=256 * 1024,  # grows under way
    reserve_bytes=0,
    open_packs=3,
)
_PIECES = [random.Random(n).randbytes(40_000 + 7_000 * n) for n in range(5)]
_TEXT = b"".join(b"line %d of a plain and compressible text\n" % n for n in range(9000))

names = st.sampled_from(["a", "b", "c", "d"])
sessions = st.integers(1, 3)
contents = st.one_of(
    st.binary(max_size=1500),
    st.lists(st.integers(0, 4), min_size=1, max_size=4).map(lambda picks: b"".join(_PIECES[n] for n in picks)),
    st.integers(1, len(_TEXT)).map(lambda size: _TEXT[-size:]),
    st.integers(1, 5).map(lambda n: bytes(n * 150_000)),
)


class EngineKeepsItsPromises(RuleBasedStateMachine):
    """What was acknowledged is there and equal; what was not is not, however the process ends."""

    honest = True

    @initialize(seed=st.integers(0, 1 << 30))
    def begin(self, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cas-machine-"))
        self.root = self.folder / "root"
        self.dice = random.Random(seed)
        self.promised: dict[str, bytes] = {}
        self.arrived: dict[int, bytes] = {}  # of each resumable upload, what was acknowledged
        self.over: set[int] = set()
        self.open(create=True)

    def open(self, *, create: bool = False) -> None:
        self.disk = ForgetfulDisk(self.dice.getrandbits(30), honest=self.honest)
        self.store = Store.open(self.root, SMALL, create=create, disk=self.disk)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    def put(self, name: str, data: bytes, step: int) -> None:
        with self.store.upload() as upload:
            for start in range(0, len(data), step):
                upload.write(data[start : start + step])
            staged = upload.finish(Digest.of(data))

        def edit(edits: Names) -> None:
            edits.keep(staged)
            edits.put(Name("thing", name), Record(name.encode(), (staged.digest,), staged.size))

        self.store.change(edit)

    @rule(name=names, data=contents, step=st.integers(20_000, 200_000))
    def a_blob_is_pushed(self, name: str, data: bytes, step: int) -> None:
        self.put(name, data, step)
        self.promised[name] = data

    def session(self, number: int) -> int:
        """Give a number that was not finished or cancelled yet; a rebuild forgets, so later ones are others."""
        while number in self.over:
            number += 10
        return number

    def learn(self, session: int, sent: bytes) -> None:
        """Ask how far an upload is after a request that was cut off: no less than before, no other bytes."""
        progress = self.store.progress(session)
        size = 0 if progress is None else progress.size
        before = self.arrived.get(session, b"")
        assert len(before) <= size <= len(before) + len(sent)
        self.arrived[session] = (before + sent)[:size]

    def append(self, session: int, data: bytes) -> None:
        with self.store.resume(session) as upload:
            assert upload.size == len(self.arrived.get(session, b""))
            for start in range(0, len(data), 60_000):
                upload.write(data[start : start + 60_000])
            size = upload.suspend()
        self.arrived[session] = self.arrived.get(session, b"") + data
        assert size == len(self.arrived[session])

    @rule(number=sessions, data=contents)
    def a_request_goes_on_with_an_upload(self, number: int, data: bytes) -> None:
        self.append(self.session(number), data)

    @rule(number=sessions, data=contents, late=contents)
    def two_requests_go_on_with_an_upload(self, number: int, data: bytes, late: bytes) -> None:
        session = self.session(number)
        with self.store.resume(session) as upload:
            upload.write(b"late")
            self.append(session, b"first" + data)
            with pytest.raises(Superseded):  # noqa: PT012 - at its end, or when its first run is to be filed
                upload.write(late)
                upload.suspend()

    @rule(number=sessions, data=contents)
    def a_request_vanishes(self, number: int, data: bytes) -> None:
        session = self.session(number)
        with self.store.resume(session) as upload:
            upload.write(data)
        self.learn(session, data)

    @rule(number=sessions, name=names, data=contents)
    def an_upload_is_finished(self, number: int, name: str, data: bytes) -> None:
        session = self.session(number)
        content = self.arrived.pop(session, b"") + data

        def edit(edits: Names, staged: Staged) -> None:
            edits.put(Name("thing", name), Record(name.encode(), (staged.digest,), staged.size))

        with self.store.resume(session) as upload:
            upload.write(data)
            upload.keep(Digest.of(content), edit)
        self.promised[name] = content
        self.over.add(session)

    @rule(number=sessions)
    def an_upload_is_cancelled(self, number: int) -> None:
        session = self.session(number)
        assert self.store.cancel(session)
        self.arrived.pop(session, None)
        self.over.add(session)

    @rule(number=sessions, data=contents, after=st.integers(0, 10))
    def the_power_goes_during_a_request(self, number: int, data: bytes, after: int) -> None:
        session = self.session(number)
        self.disk.cut_after = after
        try:
            self.append(session, data)
            data = b""
        except (PowerCut, CasError):
            pass
        pull_the_plug(self.store, self.disk)
        self.open()
        self.learn(session, data)

    @rule(number=sessions, data=contents, after=st.integers(0, 10), full=st.booleans())
    def the_disk_fails_once_during_a_request(self, number: int, data: bytes, after: int, full: bool) -> None:
        session = self.session(number)
        self.disk.fail_after, self.disk.failure = after, NoSpace if full else DiskFailed
        try:
            self.append(session, data)
            data = b""
        except CasError:
            self.the_store_is_reopened()
        self.disk.fail_after = None
        self.learn(session, data)

    @rule(name=names)
    def a_name_is_deleted(self, name: str) -> None:
        there = self.store.change(lambda edits: edits.delete(Name("thing", name)))
        assert there == (name in self.promised)
        self.promised.pop(name, None)

    @rule(name=names, data=contents)
    def a_change_is_refused(self, name: str, data: bytes) -> None:
        def edit(edits: Names) -> None:
            edits.put(Name("thing", name), Record(b"never"))
            raise KeyError(name)

        with pytest.raises(KeyError):
            self.store.change(edit)

    @rule(data=contents)
    def an_upload_is_abandoned(self, data: bytes) -> None:
        with self.store.upload() as upload:
            upload.write(data)

    @precondition(lambda self: self.promised)
    @rule(data=st.data())
    def a_range_is_read(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.promised)))
        content = self.promised[name]
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, len(content) + 5))
        with self.store.reader(Digest.of(content)) as reader:
            assert reader.read(start, stop) == content[start:stop]

    @rule()
    def the_store_is_reopened(self) -> None:
        self.store.close()
        self.open()

    @rule()
    def the_power_goes(self) -> None:
        pull_the_plug(self.store, self.disk)
        self.open()

    @rule(name=names, data=contents, after=st.integers(0, 14), rebuilt=st.booleans())
    def the_power_goes_during_a_push(self, name: str, data: bytes, after: int, rebuilt: bool) -> None:
        self.disk.cut_after = after
        try:
            self.put(name, data, 60_000)
            self.promised[name] = data
        except (PowerCut, CasError):
            pass
        pull_the_plug(self.store, self.disk)
        self.open()
        if rebuilt:
            self.the_index_is_rebuilt()

    @rule(name=names, data=contents, after=st.integers(0, 14), full=st.booleans())
    def the_disk_fails_once_during_a_push(self, name: str, data: bytes, after: int, full: bool) -> None:
        self.disk.fail_after, self.disk.failure = after, NoSpace if full else DiskFailed
        try:
            self.put(name, data, 60_000)
            self.promised[name] = data
        except CasError:
            self.the_store_is_reopened()  # also forgives the failure: two in one process make it read-only
        self.disk.fail_after = None

    @rule()
    def the_index_is_rebuilt(self) -> None:
        self.store.close()
        shutil.rmtree(self.root / "index")
        report = rebuild_index(self.root, SMALL)
        assert report.damaged == [], report.damaged
        self.open()
        self.over.clear()
        self.arrived.clear()  # uploads under way are the one thing that a rebuild forgets

    @invariant()
    def every_promise_is_kept_and_nothing_else_is_there(self) -> None:
        if not hasattr(self, "store"):
            return
        there = {name.path: record for name, record in self.store.scan("thing")}
        assert there.keys() == self.promised.keys()
        for name, content in self.promised.items():
            digest = Digest.of(content)
            assert there[name] == Record(name.encode(), (digest,), len(content))
            with self.store.reader(digest) as reader:
                assert reader.read() == content
        for session, content in self.arrived.items():
            progress = self.store.progress(session)
            assert (0 if progress is None else progress.size) == len(content)
        assert self.store.stats().logical_bytes == sum(map(len, self.promised.values()))


TestEngineKeepsItsPromises = EngineKeepsItsPromises.TestCase
TestEngineKeepsItsPromises.settings = settings(
    settings.get_profile(settings.get_current_profile_name()), stateful_step_count=25
)


class _WithoutSync(EngineKeepsItsPromises):
    honest = False


def test_the_search_finds_a_store_that_does_not_sync() -> None:
    """The machine above is no ornament: take the sync before the commit out and it fails."""
    searching = settings(
        max_examples=200, stateful_step_count=25, deadline=None, database=None, phases=[Phase.generate]
    )
    with pytest.raises((AssertionError, CasError, ExceptionGroup)):
        run_state_machine_as_test(_WithoutSync, settings=searching)
