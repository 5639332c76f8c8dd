"""A server reads through what it stores, by itself, slowly, in a process of its own, and says loudly what it finds."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

import cas.repair
from api.content.settings import KeepingSettings
from cas import REPAIR, Busy, Damaged, Digest, Missing, Store
from cas.parts import Parts
from cas.salvage import salvage
from tests.commands.test_fsck import push_image
from tests.commands.test_gc import order_for
from tests.commands.test_stats import push
from tests.support.engine import SMALL, flip, noise, prose, read
from tests.support.engine import push as engine_push
from tests.support.serving import StartServer, run_cas, until
from tests.wire.v2.pushing import Client, sha256
from tools import exits, keeping, scrubber
from tools.pace import Pace

OFTEN = KeepingSettings(scrub_interval_s=100, scrub_rate_bytes=1 << 30)
PATIENCE_S = 60


@pytest.fixture
def root(tmp_path: Path) -> Path:
    push(tmp_path / "root", 1, 2)
    return tmp_path / "root"


def grow_old(root: Path) -> None:
    """Let every pack have been written long ago."""
    for pack in (root / "packs").rglob("*.pack"):
        os.utime(pack, (1000, 1000))


def spoil(root: Path, at: int = 1 << 20) -> Path:
    path = max((root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
    flip(path, at)
    grow_old(root)
    return path


def test_what_was_written_just_now_is_not_due(root: Path) -> None:
    """Nor what was read through; what is older than the interval is."""
    with Store.open(root) as store:
        assert not store.is_scrub_due(1001)
        grow_old(root)
        assert store.is_scrub_due(1001)
        assert scrubber.scrub_if_due(store, OFTEN) == exits.OK
        assert not store.is_scrub_due(1001)


def test_damage_is_said_by_repo_and_tag_and_set_aside(server: StartServer, caplog: pytest.LogCaptureFixture) -> None:
    """A scrub beside a live server: the layer answers 404 instead of wrong bytes, and a push heals it."""
    running, layer = server(), noise(3 << 20)
    with closing(Client(running.url)) as client:
        digest = push_image(client, layer)
        path = spoil(running.root)
        with Store.open(running.root) as store, caplog.at_level(logging.ERROR):
            assert scrubber.scrub_if_due(store, OFTEN) == exits.OK
        said = [record.getMessage() for record in caplog.records]
        assert [line.startswith("DAMAGE: pack ") for line in said] == [True, False]
        assert said[0].endswith("; it concerns team/app:1.0")
        assert digest in said[1]
        assert (running.root / "quarantine" / path.name).exists()
        assert client.blob("team/app", digest).status_code == 404
        push_image(client, layer)
        assert client.blob("team/app", digest).content == layer


@pytest.mark.parametrize("is_missing", [False, True])
def test_what_a_client_saw_to_be_damaged_is_healed_by_its_next_push(server: StartServer, *, is_missing: bool) -> None:
    """Beside a live server, soon and not in a month: until it is set aside, clients are told that it is there."""
    layer = prose(3 << 20)
    running = server(workers=2)
    with closing(Client(running.url)) as client:
        push_image(client, layer)
    assert running.stop() == 0
    path = max((running.root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
    if is_missing:
        path.unlink()
    else:
        flip(path, 1000)
    again = server(workers=2)
    with closing(Client(again.url)) as client:
        digest = sha256(layer)
        assert client.blob("team/app", digest, "HEAD").status_code == 200
        assert is_cut_short(client, digest)
        until(lambda: client.blob("team/app", digest, "HEAD").status_code == 404)
        assert (running.root / "quarantine" / path.name).exists() is not is_missing
        push_image(client, layer)
        assert client.blob("team/app", digest).content == layer
    until(lambda: "until they are pushed again, these answer 404" in again.log())  # said once it is so
    log = again.log()
    assert f"; {REPAIR}\n" in log  # to who read it
    assert not any(REPAIR in line for line in log.splitlines() if "DAMAGE: " in line)  # it is done by then
    assert "; from a backup: cas fsck --repair --from BACKUP\n" in log
    assert "it concerns team/app:1.0" in log
    assert run_cas("fsck", "--deep", "--root", running.root).returncode == 0


def is_cut_short(client: Client, digest: str) -> bool:
    """Pull a layer; say whether that ended as it should with a damaged one."""
    try:
        return client.blob("team/app", digest).status_code == 500
    except httpx2.RemoteProtocolError:
        return True


def test_told_to_say_only_it_leaves_the_bytes_alone(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The pack stays where it is, and is told of by `cas stats`, until somebody mends it; nor read all the time."""
    path, tries = spoil(root), threading.Semaphore(0)
    with Store.open(root) as store:
        settings = replace(OFTEN, scrub_mends=False)
        assert scrubber.scrub_if_due(store, settings) == exits.OK
        assert store.stats().doubted == 1
        looked = store.is_scrub_due
        with pytest.MonkeyPatch.context() as patched:

            def look(before: float, *, mends: bool = True) -> bool:
                tries.release()
                return looked(before, mends=mends)

            patched.setattr(store, "is_scrub_due", look)
            with keeping.scrubbing(store, settings, lambda _: pytest.fail("it is not due"), look_s=0.001):
                assert all(tries.acquire(timeout=PATIENCE_S) for _ in range(3))
    assert [record.message.startswith("DAMAGE: ") for record in caplog.records] == [True]
    assert path.exists()
    assert run_cas("fsck", "--repair", "--root", root).returncode == 1
    with Store.open(root) as store:
        assert store.stats().doubted == 0


def test_it_is_done_by_a_process_of_its_own(root: Path) -> None:
    """Which ends well, having set aside what rotted."""
    path = spoil(root)
    with Store.open(root) as store:
        assert keeping.scrub_apart(order_for(store, OFTEN), threading.Event()) == 0
        assert not path.exists()
        assert store.stats().lost == 1
        lost = [name for name, record in store.scan("test") if is_lost(store, record.holds[0])]
        assert len(lost) == 1


def is_lost(store: Store, digest: object) -> bool:
    try:
        read(store, digest)  # type: ignore[arg-type]
    except Missing:
        return True
    return False


def test_a_server_that_stops_does_not_wait_for_the_end_of_it(root: Path) -> None:
    """However slowly it reads."""
    grow_old(root)
    stop = threading.Event()
    stop.set()
    with Store.open(root) as store:
        keeping.scrub_apart(order_for(store, KeepingSettings(scrub_rate_bytes=1)), stop)
        assert store.is_scrub_due(1001)


def test_a_worker_begins_one_when_it_is_due_and_rests_after_one_that_failed(root: Path) -> None:
    """A rate of nothing is never; a failed one would read the same bytes again at once."""
    grow_old(root)
    tries, enough = itertools.count(), threading.Event()

    def scrub(_: threading.Event) -> int:
        if next(tries) == 2:
            enough.set()
            return 1
        return 0

    with Store.open(root) as store:
        with keeping.scrubbing(store, KeepingSettings(scrub_rate_bytes=0), scrub, look_s=0.001):
            pass
        assert next(tries) == 0
        with keeping.scrubbing(store, OFTEN, scrub, look_s=0.001):
            assert enough.wait(PATIENCE_S)
        assert next(tries) == 3  # after the one that failed it waits for an hour


def test_a_worker_tries_again_soon_where_somebody_was_busy(root: Path) -> None:
    """And does not rest as after one that failed; each time for as long as it has waited, so that it does not spin."""
    grow_old(root)
    codes, enough = iter([exits.BUSY, exits.BUSY, exits.OK, exits.BUSY, exits.FINDINGS]), threading.Event()

    def scrub(_: threading.Event) -> int:
        code = next(codes)
        if code == exits.FINDINGS:
            enough.set()
        return code

    with Store.open(root) as store, keeping.scrubbing(store, OFTEN, scrub, look_s=0.001):
        assert enough.wait(PATIENCE_S)
    assert next(codes, None) is None
    waits = list(itertools.accumulate(range(8), lambda busy_s, _: keeping.longer(busy_s, 60.0), initial=0.0))
    assert waits[1:] == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_damage_in_a_pack_that_is_written_to_is_set_aside_once_that_is_over(tmp_path: Path) -> None:
    """Until then the one who scrubs is told to come again soon, and what was found is read before all else."""
    with Store.open(tmp_path / "root", replace(SMALL, pack_bytes=64 << 20), create=True) as store:
        digest = engine_push(store, "a", noise(64 << 10, 1))
        with store.upload() as upload:  # takes up the pack where the other one ended
            upload.write(noise(3 << 20, 2))
            spoil(tmp_path / "root", 20_000)
            assert scrubber.scrub_if_due(store, OFTEN) == exits.BUSY
            assert not is_lost(store, digest)
            assert store.is_scrub_due(1)
        assert scrubber.scrub_if_due(store, OFTEN) == exits.OK
        assert is_lost(store, digest)
        assert not store.is_scrub_due(1)


def test_what_was_said_is_not_said_again_by_those_who_try_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each finding once, however often it cannot be set aside, and by whichever process; of a try one line says why."""
    root = tmp_path / "root"
    with Store.open(root, replace(SMALL, pack_bytes=64 << 20), create=True) as store:
        for number in range(2):
            engine_push(store, str(number), noise(64 << 10, number))
        with store.upload() as upload:  # takes up the pack where the other one ended
            upload.write(noise(3 << 20, 2))
            path = spoil(root, 20_000)
            assert say(store, caplog, exits.BUSY) == ["DAMAGE", WHY, WHY]  # doubted by then, it is the next one as well
            assert say(store, caplog, exits.BUSY) == [WHY]
            flip(path, 100_000)
            assert say(store, caplog, exits.BUSY) == ["DAMAGE", WHY]
        assert say(store, caplog, exits.OK) == ["the damaged packs are in quarantine/"]
        assert store.scan("scrub.told") == []


WHY = "what looks damaged could not be looked at closely, and will be"


def say(store: Store, caplog: pytest.LogCaptureFixture, code: int) -> list[str]:
    """Scrub; return how the lines of the log begin."""
    caplog.clear()
    assert scrubber.scrub_if_due(store, OFTEN) == code
    return [re.split("[:;]", record.getMessage())[0] for record in caplog.records]


@pytest.mark.parametrize("how", ["header", "everywhere"])
def test_however_much_of_a_pack_is_damaged_it_is_said_in_a_few_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """None names what was done already, and together they name all that suffers."""
    root = tmp_path / "root"
    with Store.open(root, replace(SMALL, pack_bytes=64 << 20), create=True) as store:
        for number in range(20):
            engine_push(store, str(number), noise(256 << 10, number))
    path = spoil(root, 29)
    if how == "everywhere":
        flip(path, 29)
        for at in range(100_000, path.stat().st_size, 256 << 10):
            flip(path, at)
        grow_old(root)
    with Store.open(root, SMALL) as store:
        assert scrubber.scrub_if_due(store, OFTEN) == exits.OK
    said = [line for line in (record.getMessage() for record in caplog.records) if line.startswith("DAMAGE: ")]
    assert len(said) == (2 if how == "header" else 10)
    assert not any(REPAIR in line for line in said)
    concerned = {name for line in said for name in re.findall(r"thing (\d+)", line)}
    assert concerned == {str(number) for number in range(20)}


def test_a_mend_that_is_refused_on_its_way_says_what_was_lost_by_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two packs one was set aside before the other turned out to be busy."""
    with Store.open(tmp_path / "root", SMALL, create=True) as store:
        for number in range(2):
            engine_push(store, str(number), noise(SMALL.pack_bytes, number))
    packs = sorted((tmp_path / "root" / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)[-2:]
    for path in packs:
        flip(path, 20_000)
    grow_old(tmp_path / "root")
    salvaged: list[int] = []

    def one_only(parts: Parts, pack: int) -> list[Digest]:
        if salvaged:
            raise Busy("planted")
        salvaged.append(pack)
        return salvage(parts, pack)

    monkeypatch.setattr(cas.repair, "salvage", one_only)
    with Store.open(tmp_path / "root", SMALL) as store:
        assert say(store, caplog, exits.BUSY)[-1] == WHY
        lost = [str(record.holds[0]) for _, record in store.scan("thing") if is_lost(store, record.holds[0])]
    (line,) = [each.getMessage() for each in caplog.records if "answer 404" in each.getMessage()]
    assert len(lost) == 1
    assert lost[0] in line


def test_a_worker_looks_at_once_when_a_reader_saw_damage(root: Path) -> None:
    """However long it would have been until its next look, and also where nothing else is due."""
    path = max((root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
    path.unlink()
    asked = threading.Event()

    def scrub(_: threading.Event) -> int:
        asked.set()
        return 0

    with Store.open(root) as store, keeping.scrubbing(store, OFTEN, scrub, look_s=86400):
        for _, record in store.scan("test"):
            with contextlib.suppress(Damaged):
                read(store, record.holds[0])
        assert asked.wait(PATIENCE_S)


def test_one_that_is_killed_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged page of the index can end it by a signal; the server goes on."""
    grow_old(root)
    told = threading.Event()

    def scrub(_: threading.Event) -> int:
        told.set()
        return -11

    with Store.open(root) as store, keeping.scrubbing(store, OFTEN, scrub, look_s=0.001):
        assert told.wait(PATIENCE_S)
    assert [record.message for record in caplog.records] == [
        "a check of stored bytes was killed by signal 11; if nobody did it, run cas fsck"
    ]


def test_a_pace_is_kept_on_average_and_does_not_make_up_for_a_long_pause() -> None:
    """A hundred pieces at ten a second take ten seconds; after an hour of nothing, a second's worth is free."""
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(1000, clock=lambda: now[0], sleep=sleep)
    for _ in range(100):
        pace(100)
    assert 9.9 <= sum(slept) <= 10.1
    now[0] += 3600
    slept.clear()
    for _ in range(30):
        pace(100)
    assert 1.9 <= sum(slept) <= 2.1
