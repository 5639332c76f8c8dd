"""A client that sends half of something and stops holds no collection up, and goes on whenever it likes."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cas import CollectReport, Digest, Store
from cas.receive import Upload
from tests.engine.test_collect import contents, drop, keep
from tests.support.engine import KIB, MIB, SMALL, opened, prose, push, read

DEAD = prose(3 * MIB, 3)
DATA = DEAD + prose(2 * MIB, 5)
HALF = 5 * MIB // 2
ONE_RUN = replace(SMALL, segment_chunks=1000, run_bytes=8 * MIB, pack_bytes=8 * MIB)
WAIT_S = 30.0  # bounds a test that fails


def collected_beside(store: Store, act: Callable[[], object]) -> CollectReport:
    """Collect while something is done again and again."""
    with ThreadPoolExecutor(1) as pool:
        collecting = pool.submit(store.collect, wait_s=WAIT_S)
        while not collecting.done():
            act()
        return collecting.result()


def begun(store: Store, *, resumable: bool) -> Upload:
    """An upload that has sent half of what it shares with a blob that was deleted since."""
    push(store, "dead", DEAD)
    upload = store.resume(1) if resumable else store.upload()
    upload.write(DATA[:HALF])
    drop(store, "dead")
    return upload


@pytest.mark.parametrize("resumable", [False, True])
def test_a_stalled_upload_holds_no_collection_up_and_ends_well(tmp_path: Path, resumable: bool) -> None:
    """What it has found stored is filed and stays; the rest of the garbage goes."""
    with opened(tmp_path, ONE_RUN) as store:
        upload = begun(store, resumable=resumable)
        assert upload._runs._run.pin is not None
        assert "the next collection" in store.collect(wait_s=0).unfinished
        done = collected_beside(store, upload.rest)
        assert done.unfinished == ""
        assert done.chunks > 0
        upload.write(DATA[HALF:])
        assert read(store, keep(upload, "new", Digest.of(DATA)).digest) == DATA
        store.collect()
        assert contents(store)[0] == 1


def test_a_client_that_drips_holds_no_collection_up(tmp_path: Path) -> None:
    """A byte now and then never ends a run; that somebody waits does."""
    sent = HALF
    with opened(tmp_path, ONE_RUN) as store:
        upload = begun(store, resumable=False)

        def drip() -> None:
            nonlocal sent
            upload.write(DATA[sent : sent + 1])
            sent = min(sent + 1, len(DATA) - KIB)

        assert collected_beside(store, drip).unfinished == ""
        upload.write(DATA[upload.size :])
        assert read(store, keep(upload, "new", Digest.of(DATA)).digest) == DATA


def test_an_upload_that_stalled_can_be_given_up(tmp_path: Path) -> None:
    """Nothing of it is left, though some was filed."""
    with opened(tmp_path, ONE_RUN) as store:
        upload = begun(store, resumable=False)
        assert collected_beside(store, upload.rest).unfinished == ""
        upload.discard()
        store.collect()
        assert contents(store) == (0, 0, 0)


def test_rest_writes_nothing_while_nobody_collects(tmp_path: Path) -> None:
    """A slow client's upload is not cut into small runs for nothing."""
    with opened(tmp_path, ONE_RUN) as store:
        upload = begun(store, resumable=False)
        start = upload._runs.start
        for _ in range(3):
            upload.rest()
        assert upload._runs.start == start
        assert upload._runs._run.refs
        upload.discard()
