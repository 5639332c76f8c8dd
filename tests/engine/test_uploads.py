"""Resumable uploads: continued by any request, never mixed, never shrunk, forgotten only by cancelling and by age."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas import (
    Closed,
    Damaged,
    Digest,
    Mismatch,
    Missing,
    Name,
    Names,
    NoSpace,
    Progress,
    Record,
    Staged,
    Store,
    Superseded,
    Upload,
    UploadState,
    rebuild_index,
)
from cas.claims import SessionClaim
from cas.disk import Disk
from cas.index import Edit
from tests.support.engine import KIB, MIB, SMALL, flip, noise, opened, packs_of, prose, push, read, tar_of

_NUMBERS = itertools.count(1 << 40)
SAMPLES = {
    "empty": b"",
    "tiny": b"{}",
    "inline": noise(1000),
    "text": prose(500 * KIB),
    "noise": noise(700 * KIB),
    "zeros": bytes(600 * KIB),
    "a tar": tar_of({f"f{n}": noise(9 * KIB, n) for n in range(40)}),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all examples."""
    with opened(tmp_path_factory.mktemp("shared")) as store:
        yield store


def number() -> int:
    """A session of its own for every caller."""
    return next(_NUMBERS)


def patch(store: Store, session: int, data: bytes) -> int:
    """One request that appends."""
    with store.resume(session) as upload:
        upload.write(data)
        return upload.suspend()


def name_it(path: str) -> Callable[[Names, Staged], Staged]:
    """An edit that holds the blob under a name."""

    def edit(names: Names, staged: Staged) -> Staged:
        names.put(Name("thing", path), Record(path.encode(), (staged.digest,), staged.size))
        return staged

    return edit


def put(store: Store, session: int, expect: Digest | None, data: bytes = b"", path: str = "put") -> Staged:
    """One request that ends it."""
    with store.resume(session) as upload:
        upload.write(data)
        return upload.keep(expect, name_it(path))


def rows(store: Store, *tables: str) -> tuple[int, ...]:
    """Count entries once the committer has done all that was asked before."""
    store.change(lambda _: None)
    return store._parts.index.read(lambda view: tuple(map(view.count, tables)))


def forget_hashes(store: Store) -> None:
    """Make the store another worker, that saw nothing of these uploads."""
    store._parts.hashes._kept.clear()


def rebuilt(root: Path) -> None:
    """Lose the index and make it anew."""
    for path in (root / "index").iterdir():
        path.unlink()
    assert rebuild_index(root, SMALL).damaged == []


class TestGoingOn:
    """One upload, several requests."""

    @given(data=st.data())
    def test_any_cutting_into_requests_gives_the_same_blob(self, shared: Store, data: st.DataObject) -> None:
        """Whatever each request brings, whichever worker takes it: sizes add up and the bytes come out equal."""
        content = SAMPLES[data.draw(st.sampled_from(sorted(SAMPLES)))]
        cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
        session = number()
        for start, stop in zip([0, *cuts], [*cuts, len(content)], strict=True):
            if data.draw(st.booleans()):
                forget_hashes(shared)
            with shared.resume(session) as upload:
                assert upload.size == start
                upload.write(content[start:stop])
                assert upload.suspend() == stop
            known = shared.progress(session)
            assert (known.size, known.state) == (stop, UploadState.OPEN) if known else stop == 0
        staged = put(shared, session, Digest.of(content) if data.draw(st.booleans()) else None)
        assert (staged.digest, staged.size) == (Digest.of(content), len(content))
        assert read(shared, staged.digest) == content
        assert shared.progress(session) == Progress(len(content), UploadState.DONE, staged.digest)

    @pytest.mark.parametrize("kind", sorted(SAMPLES))
    def test_an_upload_is_continued_after_a_restart_and_survives_a_rebuild(self, kind: str, tmp_path: Path) -> None:
        """A new process reads back what it needs; the finished blob lies whole in the packs."""
        content, session = SAMPLES[kind], number()
        half, most = len(content) // 2, len(content) * 3 // 4
        with opened(tmp_path) as store:
            patch(store, session, content[:half])
        with opened(tmp_path) as store:
            patch(store, session, content[half:most])
        with opened(tmp_path) as store:
            put(store, session, Digest.of(content), content[most:])
            assert read(store, Digest.of(content)) == content
        rebuilt(tmp_path)
        with opened(tmp_path) as store:
            assert read(store, Digest.of(content)) == content

    def test_opening_a_session_stores_nothing(self, tmp_path: Path) -> None:
        """Thousands may be opened and left: no row, no pack, no commit."""
        disk = Disk()
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            syncs = disk.counts.syncs
            for session in range(100):
                assert store.resume(session).size == 0
                assert store.resume(session).suspend() == 0
                store.resume(session).discard()
                assert store.progress(session) is None
            assert disk.counts.syncs == syncs
            assert rows(store, "sessions", "uploads", "packs") == (0, 0, 0)

    def test_a_small_blob_in_three_requests_costs_two_commits_and_no_pack(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What engines do with every config: open, send, finish. Only the journal's pack is there afterwards."""
        commits: list[object] = []
        with opened(tmp_path) as store:
            push(store, "warm up", b"the journal's pack is open")
            write = store._parts.index.write

            def counted(work: Callable[[Edit], object]) -> object:
                commits.append(work)
                return write(work)

            monkeypatch.setattr(store._parts.index, "write", counted)
            session = number()
            patch(store, session, SAMPLES["inline"])
            forget_hashes(store)
            put(store, session, Digest.of(SAMPLES["inline"]))
            assert len(commits) == 2
            assert len(packs_of(tmp_path)) == 1

    def test_finishing_on_another_worker_reads_nothing(self, tmp_path: Path) -> None:
        """The request that brought the last byte left the digest of them all."""
        disk, content, session = Disk(), noise(900 * KIB), number()
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            patch(store, session, content)
            forget_hashes(store)
            reads = disk.counts.reads
            put(store, session, Digest.of(content))
            assert disk.counts.reads == reads
            assert read(store, Digest.of(content)) == content

    def test_a_worker_hashes_each_byte_once(self, tmp_path: Path) -> None:
        """Requests that come to the same worker go on with its hash; nothing is read back."""
        disk, content, session = Disk(), noise(900 * KIB), number()
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            for start in range(0, len(content), 100 * KIB):
                patch(store, session, content[start : start + 100 * KIB])
            reads = disk.counts.reads
            put(store, session, Digest.of(content))
            assert disk.counts.reads == reads

    def test_an_upload_is_over_once_it_was_suspended(self, tmp_path: Path) -> None:
        """The object takes no more; the session does."""
        with opened(tmp_path) as store:
            upload = store.resume(number())
            upload.write(noise(300 * KIB))
            upload.suspend()
            for verb in (upload.suspend, upload.finish, lambda: upload.write(b"more")):
                with pytest.raises(Closed):
                    verb()
            upload.discard()
            assert rows(store, "sessions") == (1,)

    @pytest.mark.parametrize("size", [500, 300 * KIB])
    def test_an_error_in_the_middle_leaves_what_was_filed(self, size: int, tmp_path: Path) -> None:
        """A discarded request takes its own bytes with it and none of those before."""
        content, session = noise(size * 2), number()
        with opened(tmp_path) as store:
            patch(store, session, content[:size])
            with store.resume(session) as upload:
                upload.write(noise(size // 2, 1))
            assert store.progress(session) == Progress(size, UploadState.OPEN, Digest.of(content[:size]))
            put(store, session, Digest.of(content), content[size:])
            assert read(store, Digest.of(content)) == content

    def test_bytes_that_were_in_the_index_stay_safe_while_they_move_to_a_pack(self, tmp_path: Path) -> None:
        """A first segment shorter than what was acknowledged would take the rest of it back."""
        settings = replace(SMALL, inline_bytes=300 * KIB, segment_chunks=1)
        content, session = prose(900 * KIB), number()
        with opened(tmp_path, settings) as store:
            patch(store, session, content[: 299 * KIB])
            with store.resume(session) as upload:
                for start in range(299 * KIB, 800 * KIB, 10 * KIB):
                    upload.write(content[start : start + 10 * KIB])
                    progress = store.progress(session)
                    assert progress is not None
                    assert progress.size >= 299 * KIB
            progress = store.progress(session)
            assert progress is not None
            put(store, session, Digest.of(content), content[progress.size :])
            assert read(store, Digest.of(content)) == content

    def test_a_full_disk_in_the_middle_leaves_what_was_filed(self, tmp_path: Path) -> None:
        """What was suspended or filed in runs is there when there is room again."""

        class Full(Disk):
            full = False

            def free_bytes(self, path: Path) -> tuple[int, int]:
                return (0, 1 << 40) if self.full else (1 << 40, 1 << 40)

        disk, content, session = Full(), noise(900 * KIB), number()
        with Store.open(tmp_path, SMALL, create=True, disk=disk) as store:
            patch(store, session, content[: 200 * KIB])
            upload = store.resume(session)
            disk.full = True
            with pytest.raises(NoSpace):  # noqa: PT012 - somewhere on the way
                upload.write(content[200 * KIB :])
                upload.suspend()
            disk.full = False
            progress = store.progress(session)
            assert progress is not None
            assert progress.size >= 200 * KIB
            put(store, session, Digest.of(content), content[progress.size :])
            assert read(store, Digest.of(content)) == content

    @pytest.mark.parametrize("size", [500, 300 * KIB])
    def test_a_wrong_digest_leaves_what_earlier_requests_brought(self, size: int, tmp_path: Path) -> None:
        """Mismatch, also when it is asked again; the right digest is still welcome."""
        content, session = noise(size), number()
        with opened(tmp_path) as store:
            patch(store, session, content)
            for _ in range(2):
                with pytest.raises(Mismatch):
                    put(store, session, Digest.of(b"other"))
                with pytest.raises(Mismatch):
                    put(store, session, Digest("sha512", bytes(64)))
            assert put(store, session, Digest.of(content)).digest == Digest.of(content)

    def test_a_refused_change_leaves_what_earlier_requests_brought(self, tmp_path: Path) -> None:
        """The edit says no: no blob, and the session is where it was."""

        def refuse(_names: Names, _staged: Staged) -> None:
            raise KeyError

        content, session = noise(300 * KIB), number()
        with opened(tmp_path) as store:
            patch(store, session, content)
            with pytest.raises(KeyError):
                store.resume(session).keep(Digest.of(content), refuse)
            assert store.stats().blobs == 0
            put(store, session, Digest.of(content))
            assert read(store, Digest.of(content)) == content

    def test_damage_to_what_arrived_before_is_noticed_when_it_is_read_back(self, tmp_path: Path) -> None:
        """Bytes that a new process hashes are those on the disk: rotten ones never become a blob (I3)."""
        content, session = prose(400 * KIB), number()
        with opened(tmp_path) as store:
            patch(store, session, content[: 300 * KIB])
        for pack in packs_of(tmp_path):
            flip(pack, 5000)
        with opened(tmp_path) as store, pytest.raises((Damaged, Mismatch)):
            put(store, session, Digest.of(content), content[300 * KIB :])


class TestRivals:
    """Several requests on one session at the same time."""

    @pytest.mark.parametrize("begun", [0, 600, 200 * KIB])
    @pytest.mark.parametrize("more", [300, 900 * KIB])
    @pytest.mark.parametrize("verb", ["suspend", "finish"])
    def test_of_two_that_go_on_from_one_byte_the_first_has_it(
        self, begun: int, more: int, verb: str, tmp_path: Path
    ) -> None:
        """The other is told so at the latest when it ends; nothing of it enters the upload."""
        content, session = noise(begun + more), number()
        with opened(tmp_path) as store:
            if begun:
                patch(store, session, content[:begun])
            late = store.resume(session)
            with pytest.raises(Superseded):  # noqa: PT012 - at its end, or when its first run is to be filed
                late.write(noise(more // 2, 1))
                patch(store, session, content[begun:])
                late.write(noise(more, 2))
                late.suspend() if verb == "suspend" else late.keep(None, name_it("late"))
            assert store.progress(session) == Progress(len(content), UploadState.OPEN, Digest.of(content))
            put(store, session, Digest.of(content))
            assert read(store, Digest.of(content)) == content
            assert store.stats().blobs == 1
        rebuilt(tmp_path)
        with opened(tmp_path) as store:
            assert read(store, Digest.of(content)) == content

    def test_a_loser_gives_its_space_back(self, tmp_path: Path) -> None:
        """Superseded before its record was written: the pack is as long as before."""
        with opened(tmp_path) as store:
            push(store, "a pack", noise(50 * KIB))
            session, before = number(), store.stats().pack_bytes
            loser = store.resume(session)
            loser.write(noise(80 * KIB, 1))
            patch(store, session, b"first")
            with pytest.raises(Superseded):
                loser.suspend()
            assert store.stats().pack_bytes == before

    def test_a_finished_or_cancelled_upload_is_not_gone_on_with(self, tmp_path: Path) -> None:
        """Neither by a request that came before the end nor by one that comes after."""
        with opened(tmp_path) as store:
            for end in (lambda session: put(store, session, None), store.cancel):
                session = number()
                patch(store, session, noise(200 * KIB))
                late = store.resume(session)
                late.write(b"more")
                end(session)
                with pytest.raises(Superseded):
                    late.suspend()
                with pytest.raises(Missing, match="begin a new one"):
                    store.resume(session)

    def test_two_requests_that_finish_one_upload_make_one_blob(self, tmp_path: Path) -> None:
        """A retried request that overtakes its first try: both are told yes; one with more bytes came late."""
        content, session = noise(300 * KIB), number()
        with opened(tmp_path) as store:
            patch(store, session, content)
            first, second, third = store.resume(session), store.resume(session), store.resume(session)
            first.keep(Digest.of(content), name_it("a"))
            second.keep(Digest.of(content), name_it("b"))
            third.write(b"more")
            with pytest.raises(Superseded):
                third.keep(None, name_it("c"))
            assert [name.path for name, _ in store.scan("thing")] == ["a", "b"]
            assert read(store, Digest.of(content)) == content
            assert store.stats().blobs == 1

    def test_a_record_that_a_loser_left_is_not_believed_by_a_rebuild(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed between its commit record and its filing, it left a segment with the place of another's (I3, I4)."""

        class CountsDown(Disk):
            left = 1 << 40

            def random(self, size: int) -> bytes:
                self.left -= 1 << 20
                return self.left.to_bytes(8, "big") if size == 8 else super().random(size)

        content, session = noise(100 * KIB) + prose(200 * KIB), number()
        with Store.open(tmp_path, SMALL, create=True, disk=CountsDown()) as store:
            patch(store, session, content[: 100 * KIB])
            dead = store.resume(session)
            dead.write(noise(90 * KIB, 7) + prose(300 * KIB, 7))
            with monkeypatch.context() as patched:
                patched.setattr(SessionClaim, "file", _killed)
                with pytest.raises(ZeroDivisionError):
                    dead.suspend()
            store.upload().write(noise(2 * MIB))  # takes the pack; the next one comes before it when packs are read
            patch(store, session, content[100 * KIB : 200 * KIB])
            put(store, session, Digest.of(content), content[200 * KIB :])
        rebuilt(tmp_path)
        with opened(tmp_path) as store:
            assert read(store, Digest.of(content)) == content


def _killed(*_: object) -> None:
    raise ZeroDivisionError


class TestTheEnd:
    """Cancelled, finished, forgotten."""

    @pytest.mark.parametrize("size", [0, 500, 900 * KIB])
    def test_a_cancelled_upload_leaves_a_tombstone_and_nothing_else(self, size: int, tmp_path: Path) -> None:
        """Also one of which nothing was ever stored."""
        session = number()
        with opened(tmp_path) as store:
            if size:
                patch(store, session, noise(size))
            assert store.cancel(session)
            assert not store.cancel(session)
            assert store.progress(session) == Progress(0, UploadState.CANCELLED, None)
            assert rows(store, "sessions", "recipes", "uploads") == (1, 0, 0)

    def test_cancelling_a_finished_upload_spares_its_blob(self, tmp_path: Path) -> None:
        """Whether it is still remembered or not."""
        content, session = noise(300 * KIB), number()
        with opened(tmp_path) as store:
            patch(store, session, content)
            put(store, session, Digest.of(content))
            assert not store.cancel(session)
            assert store.expire_uploads(0, 1e12) == 1
            assert store.cancel(session)
            assert read(store, Digest.of(content)) == content

    def test_a_number_that_comes_back_after_it_was_forgotten_begins_anew(self, tmp_path: Path) -> None:
        """It can do nothing to the blob that was made under it."""
        content, other, session = noise(300 * KIB), noise(200 * KIB, 1), number()
        with opened(tmp_path) as store:
            patch(store, session, content)
            put(store, session, Digest.of(content))
            store.expire_uploads(0, 1e12)
            assert store.resume(session).size == 0
            patch(store, session, other)
            assert read(store, Digest.of(content)) == content
            put(store, session, Digest.of(other), path="other")
        rebuilt(tmp_path)
        with opened(tmp_path) as store:
            assert (read(store, Digest.of(content)), read(store, Digest.of(other))) == (content, other)

    @pytest.mark.parametrize("size", [500, 200 * KIB])
    def test_a_number_that_comes_back_is_hashed_anew(self, size: int, tmp_path: Path) -> None:
        """The hash of the old upload's bytes proves nothing about the new one's (I3)."""
        old, new, rest, session = noise(size, 1), noise(size, 2), noise(300 * KIB, 3), number()
        with opened(tmp_path) as store:
            patch(store, session, old)
            store.cancel(session)
            store.expire_uploads(0, 1e12)
            kept = dict(store._parts.hashes._kept)
            patch(store, session, new)
            forget_hashes(store)
            store._parts.hashes._kept.update(kept)  # as if another worker had taken the new bytes
            with pytest.raises(Mismatch):
                put(store, session, Digest.of(old + rest), rest)
            progress = store.progress(session)
            assert progress is not None
            put(store, session, Digest.of(new + rest), (new + rest)[progress.size :])
            assert read(store, Digest.of(new + rest)) == new + rest

    def test_uploads_that_nobody_goes_on_with_are_forgotten_by_age(self, tmp_path: Path) -> None:
        """Open ones after their life, finished and cancelled ones sooner; a tick does it, a touched one stays."""
        now = [1000.0]
        settings = replace(SMALL, upload_life_s=500, upload_tombstone_s=100)
        with Store.open(tmp_path, settings, create=True, clock=lambda: now[0]) as store:
            old, cancelled, done, touched = number(), number(), number(), number()
            content = noise(300 * KIB)
            patch(store, old, noise(900 * KIB, 1))
            patch(store, touched, content)
            store.cancel(cancelled)
            patch(store, done, content)
            put(store, done, Digest.of(content))
            now[0] += 150
            store.tick()
            assert [store.progress(one) is None for one in (old, cancelled, done, touched)] == [
                False,
                True,
                True,
                False,
            ]
            now[0] += 300
            patch(store, touched, b"more")
            now[0] += 100
            store.tick()
            assert [store.progress(one) is None for one in (old, touched)] == [True, False]
            assert read(store, Digest.of(content)) == content
            put(store, touched, Digest.of(content + b"more"), path="touched")
            assert rows(store, "recipes")[0] == sum(
                len(store._parts.index.read(lambda view, one=one: view.segments(view.blob(one).recipe)))  # type: ignore[misc]
                for one in (Digest.of(content), Digest.of(content + b"more"))
            )

    def test_thousands_of_small_abandoned_uploads_are_forgotten(self, tmp_path: Path) -> None:
        """In steps of a bounded size, and counted."""
        with opened(tmp_path) as store:
            for session in range(200):
                patch(store, session, b"%d" % session)
            assert store.expire_uploads(0, 0) == 0
            assert store.expire_uploads(1e12, 0) == 200
            assert rows(store, "sessions") == (0,)

    def test_a_rebuild_forgets_uploads_and_nothing_that_is_named(self, tmp_path: Path) -> None:
        """Sessions live in the index alone: the client begins anew."""
        content, session = noise(300 * KIB), number()
        with opened(tmp_path) as store:
            digest = push(store, "named", content)
            patch(store, session, noise(300 * KIB, 1))
        rebuilt(tmp_path)
        with opened(tmp_path) as store:
            assert store.progress(session) is None
            assert store.resume(session).size == 0
            assert read(store, digest) == content


class TestAlgorithms:
    """Digests other than SHA-256."""

    @pytest.mark.parametrize("kind", sorted(SAMPLES))
    @pytest.mark.parametrize("told", ["when it begins", "at the end"])
    def test_a_blob_is_named_by_the_algorithm_its_client_chose(self, kind: str, told: str, tmp_path: Path) -> None:
        """Sha512, known from the start or only when it is expected; in one request and in several."""
        content = SAMPLES[kind]
        digest = _sha512(content)
        algorithm = "sha512" if told == "when it begins" else "sha256"
        with opened(tmp_path) as store:
            upload = store.upload(algorithm=algorithm)
            upload.write(content)
            assert upload.keep(digest, name_it("one")).digest == digest
            session = number()
            half = len(content) // 2
            first = store.resume(session, algorithm=algorithm)
            first.write(content[:half])
            first.suspend()
            last = store.resume(session, algorithm=algorithm)
            last.write(content[half:])
            assert last.keep(digest, name_it("several")).digest == digest
            assert read(store, digest) == content
            assert store.stats().blobs == 1
        rebuilt(tmp_path)
        with opened(tmp_path) as store:
            assert read(store, digest) == content

    def test_wrong_bytes_are_refused_by_any_algorithm(self, tmp_path: Path) -> None:
        """Mismatch, and nothing is there."""
        with opened(tmp_path) as store:
            for size in (100, 300 * KIB):
                upload = store.upload()
                upload.write(noise(size))
                with pytest.raises(Mismatch):
                    upload.finish(_sha512(b"other"))
            assert rows(store, "blobs", "recipes", "uploads") == (0, 0, 0)

    def test_two_names_of_the_same_bytes_share_their_chunks_and_nothing_else(self, tmp_path: Path) -> None:
        """Each is stored, held and forgotten for itself; the bytes lie there once."""
        content = noise(300 * KIB)
        with opened(tmp_path) as store:
            first = push(store, "sha256", content)
            chunks, size = store.stats().chunks, store.stats().pack_bytes
            upload = store.upload()
            upload.write(content)
            second = upload.keep(_sha512(content), name_it("sha512")).digest
            assert store.stats().chunks == chunks
            assert store.stats().pack_bytes - size < 2000
            store.change(lambda names: names.delete(Name("thing", "sha256")))
        rebuilt(tmp_path)
        with opened(tmp_path) as store:
            assert read(store, second) == content
            with pytest.raises(Missing):
                store.stat(first)


def _sha512(content: bytes) -> Digest:
    hasher = Digest("sha512", bytes(64)).hasher()
    hasher.update(content)
    return Digest("sha512", hasher.digest())


def test_the_order_in_which_many_sessions_are_served_does_not_matter(tmp_path: Path) -> None:
    """Twenty uploads by turns, some of one content, with restarts in between: each ends as it should."""
    dice = random.Random(4)
    contents = [noise(dice.randrange(1, 400) * 700, n % 12) for n in range(20)]
    at = dict.fromkeys(range(20), 0)
    store = Store.open(tmp_path, SMALL, create=True)
    while at:
        session = dice.choice(sorted(at))
        content, start = contents[session], at[session]
        stop = min(start + dice.randrange(1, 150_000), len(content))
        if dice.random() < 0.05:
            store.close()
            store = Store.open(tmp_path, SMALL)
        upload: Upload = store.resume(session)
        assert upload.size == start
        upload.write(content[start:stop])
        if stop < len(content):
            at[session] = upload.suspend()
        else:
            upload.keep(Digest.of(content), name_it(str(session)))
            del at[session]
    for content in contents:
        assert read(store, Digest.of(content)) == content
    store.close()


@pytest.mark.parametrize("seed", range(3))
def test_requests_that_race_on_the_same_uploads_never_mix(seed: int, tmp_path: Path) -> None:
    """Eight threads, three sessions, thirty requests each: whatever was acknowledged lies where it was said to lie."""
    lock, parts = threading.Lock(), {session: dict[int, bytes]() for session in range(3)}

    def work(worker: int) -> None:
        dice = random.Random(100 * seed + worker)
        for _ in range(30):
            session, data = dice.randrange(3), dice.randbytes(dice.choice([10, 700, 5_000, 120_000, 300_000]))
            with store.resume(session) as upload:
                start = upload.size
                try:
                    for at in range(0, len(data), 50_000):
                        upload.write(data[at : at + 50_000])
                    assert upload.suspend() == start + len(data)
                except Superseded:
                    continue
            with lock:
                assert start not in parts[session], "two requests were told that they went on from one byte"
                parts[session][start] = data

    with opened(tmp_path, replace(SMALL, segment_chunks=1)) as store, ThreadPoolExecutor(8) as pool:
        for one in [pool.submit(work, worker) for worker in range(8)]:
            one.result()
        for session, found in parts.items():
            staged = put(store, session, None, path=str(session))
            content = read(store, staged.digest)
            assert Digest.of(content) == staged.digest
            assert all(content[start : start + len(data)] == data for start, data in found.items())
            reached = 0
            for start, data in sorted(found.items()):
                assert start >= reached
                reached = start + len(data)
    rebuilt(tmp_path)
    with opened(tmp_path) as store:
        assert all(Digest.of(read(store, record.holds[0])) == record.holds[0] for _, record in store.scan("thing"))
