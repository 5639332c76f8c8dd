"""A push brings back every blob that lacked what it stored (I9), and nothing that is not proven (I3)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path

import pytest

from cas import Depth, Digest, Missing, Name, Names, Record, Store, rebuild_index
from cas.errors import Mismatch
from tests.engine.test_damage import chunks_of, spoil
from tests.support.engine import KIB, MIB, SMALL, noise, opened, prose, push, read

PATIENCE_S = 60
COMMON = prose(600 * KIB)
ONE, TWO = COMMON + noise(300 * KIB, 1), COMMON + noise(300 * KIB, 2)


def lose(store: Store, *names: bytes) -> None:
    """Damage the chunk that all of these blobs begin with, and let repair set it aside."""
    [(_, row)] = {chunks_of(store, Digest.of(data))[0] for data in names}
    spoil(store, store._parts.layout.root, row.extent)
    report = store.repair(Depth.DATA)
    assert set(report.lost) == {Digest.of(data) for data in names}
    for data in names:
        with pytest.raises(Missing):
            store.reader(Digest.of(data))


def sha512(data: bytes) -> Digest:
    return Digest("sha512", hashlib.sha512(data).digest())


def lost(store: Store) -> set[Digest]:
    return {blob.digest for blob in store._parts.index.read(lambda view: view.lost_after(None, 1000))}


def test_another_blob_with_the_same_chunk_brings_back_all_that_lacked_it(tmp_path: Path) -> None:
    """Neither of them is pushed: a third one shares the text with both."""
    with opened(tmp_path) as store:
        push(store, "one", ONE)
        push(store, "two", TWO)
        lose(store, ONE, TWO)
        push(store, "three", COMMON + noise(100 * KIB, 3))
        store.heal()
        assert lost(store) == set()
        assert [read(store, Digest.of(data)) == data for data in (ONE, TWO)] == [True, True]
        assert list(store.check(Depth.DEEP)) == []


def test_it_happens_by_itself_once_the_push_is_answered(tmp_path: Path) -> None:
    """Nobody has to ask: the store's own thread does it."""
    with opened(tmp_path) as store:
        push(store, "one", ONE)
        lose(store, ONE)
        back, run = threading.Event(), store._healing.run

        def told() -> list[Digest]:
            healed = run()
            if healed:
                back.set()
            return healed

        store._healing.run = told  # type: ignore[method-assign]
        push(store, "two", TWO)
        assert back.wait(PATIENCE_S)
        assert read(store, Digest.of(ONE)) == ONE


def test_the_same_bytes_under_another_algorithm_come_back_too(tmp_path: Path) -> None:
    """Each digest is proven for itself."""
    data = noise(3 * MIB)
    with opened(tmp_path) as store:
        push(store, "256", data)
        with store.upload(algorithm="sha512") as upload:
            upload.write(data)
            staged = upload.finish(sha512(data))

            def keep(names: Names) -> None:
                names.keep(staged)
                names.put(Name("thing", "512"), Record(b"", (staged.digest,), staged.size))

            store.change(keep)
        row = chunks_of(store, Digest.of(data))[0][1]
        spoil(store, tmp_path, row.extent)
        assert set(store.repair(Depth.DATA).lost) == {Digest.of(data), sha512(data)}
        push(store, "256", data)
        store.heal()
        assert read(store, sha512(data)) == data


def test_a_chunk_that_is_here_twice_heals_without_any_push(tmp_path: Path) -> None:
    """Somebody pushed it again before anybody knew of the damage; repair finds that and loses nothing."""
    with opened(tmp_path) as store:
        push(store, "one", ONE)
        push(store, "two", TWO)
        shared = set(dict(chunks_of(store, Digest.of(ONE)))) & set(dict(chunks_of(store, Digest.of(TWO))))
        spoil(store, tmp_path, dict(chunks_of(store, Digest.of(ONE)))[min(shared)].extent)
        push(store, "one again", ONE)
        report = store.repair(Depth.DATA)
        assert (report.lost, report.left) == ((), ())
        assert read(store, Digest.of(TWO)) == TWO


def test_a_key_is_no_proof(tmp_path: Path) -> None:
    """Other bytes under the key of the lost chunk bring nothing back, and the right ones still do."""
    with opened(tmp_path) as store:
        push(store, "one", ONE)
        wanted, _ = chunks_of(store, Digest.of(ONE))[0]
        lose(store, ONE)
        push(store, "other", noise(4 * MIB, 9))
        _, liar = next(
            (ref, row) for ref, row in chunks_of(store, Digest.of(noise(4 * MIB, 9))) if row.extent.raw >= wanted.raw
        )
        forged, twin = liar.extent._replace(stored=wanted.raw, raw=wanted.raw), wanted._replace(salt=wanted.salt ^ 1)
        store._parts.committer.run(lambda edit, _: edit.put_chunk(twin, forged))
        assert store.heal() == []
        assert lost(store) == {Digest.of(ONE)}
        push(store, "two", TWO)
        store.heal()
        assert read(store, Digest.of(ONE)) == ONE


def test_what_was_proven_wrong_is_not_read_at_every_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost blob that nothing can bring back costs one look-up, whatever is pushed."""
    with opened(tmp_path) as store:
        push(store, "one", ONE)
        lose(store, ONE)
        store.heal()
        looks: list[str] = []
        monkeypatch.setattr("cas.heal._stand_ins", lambda *_: looks.append("walked"))
        push(store, "other", noise(MIB, 5))
        store.heal()
        assert looks == []


def test_a_blob_deleted_meanwhile_stays_deleted(tmp_path: Path) -> None:
    """Bytes that no name holds any more are not brought back, nor left behind."""
    with opened(tmp_path) as store:
        push(store, "one", ONE)
        lose(store, ONE)
        store.change(lambda names: names.delete(Name("thing", "one")))
        push(store, "two", TWO)
        assert store.heal() == []
        store.collect()
        store.compact(everything=True)
        assert lost(store) == set()
        with pytest.raises(Missing):
            store.reader(Digest.of(ONE))
        assert list(store.check(Depth.DEEP)) == []


def test_what_was_healed_outlives_collection_compaction_and_a_rebuild(tmp_path: Path) -> None:
    """The packs prove it as they would have proven a push; nothing of the damaged recipe stays."""
    with opened(tmp_path) as store:
        push(store, "one", ONE)
        push(store, "two", TWO)
        lose(store, ONE, TWO)
        push(store, "three", COMMON + noise(100 * KIB, 3))
        store.heal()
        store.collect()
        store.compact(everything=True)
        assert list(store.check(Depth.DEEP)) == []
    shutil.rmtree(tmp_path / "index")
    assert rebuild_index(tmp_path, SMALL).damaged == []
    with opened(tmp_path) as store:
        assert [read(store, Digest.of(data)) == data for data in (ONE, TWO)] == [True, True]
        assert list(store.check(Depth.DEEP)) == []


def test_what_a_rebuild_could_not_find_comes_back_by_another_blob(tmp_path: Path) -> None:
    """Its recipe is there and a pack of its chunks is not."""
    with opened(tmp_path) as store:
        push(store, "one", ONE)
        places = {row.extent.pack for _, row in chunks_of(store, Digest.of(ONE))[:1]}
    for pack in places:
        (tmp_path / "packs" / f"{pack:016x}"[:2] / f"{pack:016x}.pack").unlink()
    shutil.rmtree(tmp_path / "index")
    rebuild_index(tmp_path, SMALL)
    with opened(tmp_path) as store:
        assert lost(store) == {Digest.of(ONE)}
        push(store, "copy", noise(10, 1) + ONE)
        store.heal()
        if lost(store):  # its records of segments were in that pack: then only itself heals it
            push(store, "one", ONE)
        assert read(store, Digest.of(ONE)) == ONE


def test_a_store_that_closes_does_not_wait_for_healing(tmp_path: Path) -> None:
    """It is left in the middle, and the next opener's house-keeping goes on with it."""
    with opened(tmp_path) as store:
        push(store, "one", ONE)
        lose(store, ONE)
        store._healing._closing = True
        push(store, "two", TWO)
    with opened(tmp_path) as store:
        assert lost(store) == {Digest.of(ONE)}
        store.tick()
        store._healing._pool.submit(bool).result(PATIENCE_S)  # after the look that the tick asked for
        assert read(store, Digest.of(ONE)) == ONE


def test_nothing_is_looked_for_while_nothing_is_lost(tmp_path: Path) -> None:
    """Not even a thread is there."""
    with opened(tmp_path) as store:
        push(store, "one", ONE)
        store.tick()
        assert not store._healing._asked.is_set()
        assert not store._healing._pool._threads


def test_wrong_bytes_of_the_own_digest_are_refused_as_ever(tmp_path: Path) -> None:
    """A lost blob is as strict as one that never was."""
    with opened(tmp_path) as store:
        push(store, "one", ONE)
        lose(store, ONE)
        with store.upload() as upload, pytest.raises(Mismatch):  # noqa: PT012 - the upload ends in it
            upload.write(TWO)
            upload.finish(Digest.of(ONE))
        assert lost(store) == {Digest.of(ONE)}
