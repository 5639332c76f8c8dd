"""`cas gc`, by hand and on a server's schedule: what nothing needs goes, and its space comes back."""

# ruff: noqa: SLF001 - what a worker knows of its store is taken from inside

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import re
import socket
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from api import maintenance
from api.access.settings import AccessSettings
from api.config import HttpSettings
from api.content import marks
from api.content.settings import KeepingSettings
from api.v1.settings import V1Settings
from api.v2.settings import V2Settings
from cas import DiskFailed, InUse, Name, Store
from cas.layout import Layout
from cas.lease import maintenance_lock
from tests.support.engine import flip, noise, push
from tests.support.processes import start_python
from tests.support.serving import StartServer, run_cas
from tests.wire.v2.content import Home
from tests.wire.v2.pushing import Client, new_data, new_repository
from tools import keeping
from tools.order import Order

MIB = 1 << 20
LINKS = "blobs that no manifest of their repository names"


def gc(root: Path, *flags: str, code: int = 0) -> dict[str, Any]:
    ended = run_cas("gc", "--json", *flags, "--root", root)
    assert (ended.returncode, ended.stderr) == (code, "")
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def pack_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / "packs").rglob("*.pack"))


def test_what_was_deleted_gives_its_space_back_beside_a_live_server(server: StartServer) -> None:
    """First said, exactly, then done; what others need is served all the while."""
    running = server(workers=2)
    root = running.root
    with closing(Client(running.url)) as client:
        kept, gone = Home(client), Home(client, layers=(noise(5 * MIB, 1), noise(3 * MIB, 2)))
        kept.push(kept.numbered(1), "some")
        gone.push(gone.numbered(1), "some")
        assert run_cas("repo", "rm", gone.name, "--root", root).returncode == 0
        assert gc(root)["names"] == {}
        before = pack_bytes(root)
        told = gc(root, "--grace", "0", "--dry-run")
        assert pack_bytes(root) == before
        done = gc(root, "--grace", "0")
        assert (told["dry_run"], done["dry_run"]) == (True, False)
        assert told["names"] == done["names"] != {}
        assert told["bytes"] == done["bytes"]
        assert told["packs"]["data"] == done["packs"]["data"]
        assert told["given_back"] == done["packs"]["data"]["freed_bytes"]
        own = 512  # of its own journal: the note that it ran, and the end
        assert done["given_back"] == pytest.approx(before - pack_bytes(root), abs=own)
        assert done["bytes"]["blobs"] == 2
        assert pack_bytes(root) <= before - 8 * MIB
        assert kept.get("some").content == kept.numbered(1).body
        assert gc(root, "--grace", "0")["bytes"]["bytes"] == 0


def test_what_is_moved_to_quarantine_is_not_said_to_be_given_back(tmp_path: Path) -> None:
    """It takes there what it took before; a dry run foretells it."""
    root = tmp_path / "root"
    with Store.open(root, create=True) as store:
        push(store, "a", noise(MIB))
    (pack,) = (path for path in (root / "packs").rglob("*.pack") if path.stat().st_size > MIB)
    stray = root / "packs" / "00" / "0000000000000001.pack"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(pack.read_bytes())
    size = stray.stat().st_size
    said = run_cas("gc", "--dry-run", "--root", root).stdout
    assert "to be moved to quarantine/, which gives nothing back: 1.00 MiB\n" in said
    assert stray.exists()
    done = gc(root, code=1)
    assert done["packs"]["aside_bytes"] == (root / "quarantine" / stray.name).stat().st_size == size
    assert done["given_back"] <= 0  # but for what it writes down itself
    stray.write_bytes(pack.read_bytes())
    said = run_cas("gc", "--root", root).stdout
    assert "moved to quarantine/, which gives nothing back: 1.00 MiB\n" in said
    assert "given back to the disk" not in said


def test_what_is_said_for_people_names_what_and_why(tmp_path: Path, server: StartServer) -> None:
    """Counts, reasons, sizes; a dry run says that it is one."""
    running = server(tmp_path / "root")
    with closing(Client(running.url)) as client:
        client.push(new_repository(), new_data(100_000))
    said = run_cas("gc", "--grace", "0s", "--dry-run", "--root", running.root).stdout
    assert f"1  {LINKS}" in said
    assert "nothing was removed: this was a dry run; to be given back to the disk: " in said
    said = run_cas("gc", "--grace", "0s", "--root", running.root).stdout
    assert "1  blobs that nothing holds" in said
    assert "removed; given back to the disk: " in said
    for flags in (("--grace", "12h"), ("--dry-run",)):
        said = run_cas("gc", *flags, "--root", running.root).stdout
        assert said.splitlines()[-1] == "nothing to remove"


def test_why_a_deletion_freed_nothing_yet_is_said(server: StartServer) -> None:
    """That it can be undone, until when, and what ends that; then it is not said any more."""
    running = server()
    with closing(Client(running.url)) as client:
        for tag in ("one", "two"):
            home = Home(client)
            home.push(home.numbered(1), tag)
            assert run_cas("repo", "rm", home.name, "--root", running.root).returncode == 0
    for flags in ((), ("--dry-run",)):
        said = run_cas("gc", *flags, "--root", running.root).stdout.splitlines()
        assert re.fullmatch(
            r"kept: what 2 deletions took, which can be undone until 20\d\d-\d\d-\d\d \d\d:\d\d UTC at the latest; "
            r"cas du says how much that is, and --grace 0 ends it",
            said[-1],
        )
        told = gc(running.root, *flags)["deletions"]
        assert (told["undoable"], 0 <= time.time() - told["latest"] < 600) == (2, True)
    assert "\nkept: " not in run_cas("gc", "--grace", "0", "--root", running.root).stdout
    assert gc(running.root)["deletions"] == {"undoable": 0, "latest": 0}


def test_what_stays_although_its_tag_was_deleted_is_said(server: StartServer) -> None:
    """Or nobody knows why a full disk stays full; counted as it would go, and no more once it went."""
    running = server()
    with closing(Client(running.url)) as client:
        home = Home(client)
        for number, tag in enumerate(("one", "two", "three")):
            home.push(home.numbered(number), tag)
        for tag in ("one", "two"):
            assert client.speech.delete(f"/v2/{home.name}/manifests/{tag}").status_code == 202
    said = run_cas("gc", "--grace", "0", "--root", running.root).stdout
    assert "\nkept: 2 manifests without a tag, to be pulled by their digest; --untagged removes them\n" in said
    assert gc(running.root, "--grace", "0")["untagged"] == 2
    assert gc(running.root, "--grace", "0", "--untagged")["names"]["manifests without a tag"] == 2
    assert gc(running.root, "--grace", "0")["untagged"] == 0
    assert "\nkept: " not in run_cas("gc", "--grace", "0", "--root", running.root).stdout


def test_a_push_that_stalls_holds_nothing_up_and_ends_well(server: StartServer) -> None:
    """Its client sends half a layer and stops, for any time: all garbage goes meanwhile, and then the rest is taken."""
    running = server(workers=2)
    layer = noise(4 * MIB, 5) + noise(4 * MIB, 6)
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    with closing(Client(running.url)) as client:
        gone = Home(client, layers=(layer[: 6 * MIB],))
        gone.push(gone.numbered(1), "some")
        head = f"POST /v2/stalled/blobs/uploads/?digest={digest} HTTP/1.1\r\n"
        head += f"Host: x\r\nContent-Length: {len(layer)}\r\n\r\n"
        with socket.create_connection((running.host, running.port), timeout=60) as sock:
            sock.sendall(head.encode() + layer[: 5 * MIB])
            assert run_cas("repo", "rm", gone.name, "--root", running.root).returncode == 0
            done = gc(running.root, "--grace", "0")
            assert (done["left"], done["bytes"]["blobs"]) == ([], 2)
            sock.sendall(layer[5 * MIB :])
            assert sock.recv(4096).startswith(b"HTTP/1.1 201 ")
        assert client.speech.get(f"/v2/stalled/blobs/{digest}").content == layer


def test_a_second_one_is_told_that_there_is_one(tmp_path: Path) -> None:
    """In one line, with the exit code of what can be tried again."""
    Store.open(tmp_path / "root", create=True).close()
    with maintenance_lock(Layout(tmp_path / "root")):
        ended = run_cas("gc", "--root", tmp_path / "root")
    assert (ended.returncode, ended.stdout) == (75, "")
    assert ended.stderr.startswith("cas: a collection, ")
    assert len(ended.stderr.splitlines()) == 1


def test_beside_another_one_nothing_is_changed(tmp_path: Path, server: StartServer) -> None:
    """Not a name either: the marks of who was first stay, which would take their going for a push."""
    running = server(tmp_path / "root")
    with closing(Client(running.url)) as client:
        home = Home(client)
        untagged = home.push(home.numbered(1))
        with Store.open(running.root) as store:
            store.change(lambda names: marks.put(names, home.name, "of who was first"))
            with maintenance_lock(Layout(running.root)):
                assert run_cas("gc", "--grace", "0", "--untagged", "--root", running.root).returncode == 75
            assert store.read(lambda reads: reads.get(Name(marks.MARK, home.name))) is not None
        assert home.get(untagged.digest).status_code == 200
        assert gc(running.root, "--grace", "0", "--untagged")["names"]["manifests without a tag"] == 1


@pytest.mark.parametrize("grace", ["", "soon", "-1", "1w", "nan"])
def test_a_grace_that_is_no_time_is_refused(tmp_path: Path, grace: str) -> None:
    """Nothing is guessed where the guess removes things."""
    ended = run_cas("gc", "--grace", grace, "--root", tmp_path)
    assert ended.returncode == 2
    assert "is not a time, such as 0, 90s, 30m, 12h or 7d" in ended.stderr


def order_for(store: Store, settings: KeepingSettings) -> Order:
    """What a worker of this store knows."""
    parts = store._parts
    root, engine, access = parts.layout.root, parts.settings, AccessSettings()
    return Order(root, (), "warning", engine, HttpSettings(), V1Settings(), V2Settings(), access, settings)


class TestSchedule:
    """What a worker does by itself."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Store.open(tmp_path / "root", create=True)

    def test_it_is_time_once_the_interval_has_passed_whoever_did_it(self, store: Store) -> None:
        """Kept in the store, so that a restart does not begin anew; a clock that was set back does not stop it."""
        settings = KeepingSettings(gc_interval_s=100)
        with store:
            assert maintenance.is_due(store, settings, 1000)
            maintenance.note_run(store, 1000)
            assert [maintenance.is_due(store, settings, now) for now in (1000, 1099, 1100, 900)] == [
                False,
                False,
                True,
                True,
            ]
            assert not maintenance.is_due(store, KeepingSettings(gc_interval_s=0), 5000)

    def test_a_worker_goes_on_serving_whatever_fails(self, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        """Logged where it matters, and tried again."""
        tries, enough = itertools.count(), threading.Event()

        def collect(_: threading.Event) -> None:
            if next(tries) > 1:
                enough.set()
            raise RuntimeError("bug")

        with store, keeping.collecting(store, KeepingSettings(), collect, look_s=0.001):
            assert enough.wait(30)
        assert {record.message for record in caplog.records} == {"a collection failed and will be tried again"}

    def test_a_full_disk_is_told_and_another_one_at_it_is_not(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither counts as a time."""
        errors: list[Exception] = [DiskFailed("no"), InUse("another")]

        def run(*_: object, **__: object) -> None:
            raise errors.pop(0)

        monkeypatch.setattr(maintenance, "run", run)
        with store, caplog.at_level(logging.WARNING):
            assert not keeping.collect_if_due(store, KeepingSettings())
            assert not keeping.collect_if_due(store, KeepingSettings())
            assert maintenance.is_due(store, KeepingSettings(), time.time())
        assert [record.message for record in caplog.records] == ["a collection failed and will be tried again: no"]

    def test_a_collection_is_done_by_a_process_of_its_own(self, store: Store) -> None:
        """Which leaves its note, and takes what is due."""
        settings = KeepingSettings(gc_interval_s=1000)
        with store:
            push(store, "gone", noise(2 * MIB))
            store.change(lambda names: names.delete(Name("thing", "gone")))
            keeping.collect_apart(order_for(store, settings), threading.Event())
            assert store.stats().blobs == 0
            assert not maintenance.is_due(store, settings, time.time())

    def test_a_server_that_stops_does_not_wait_for_the_end_of_a_collection(self, store: Store) -> None:
        """It is ended wherever it is, even before it began."""
        stop = threading.Event()
        stop.set()
        with store:
            keeping.collect_apart(order_for(store, KeepingSettings()), stop)
            assert maintenance.is_due(store, KeepingSettings(), time.time())

    def test_what_was_left_of_the_bytes_is_told_too(self, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        """And that the damage that kept it from them is looked into at once."""
        with store:
            push(store, "kept", noise(2 * MIB))
        with Store.open(store._parts.layout.root) as again, caplog.at_level(logging.WARNING):
            path = max((store._parts.layout.root / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
            flip(path, path.stat().st_size - 5)
            assert keeping.collect_if_due(again, KeepingSettings())
            assert again.is_scrub_due(1)
        [told] = [record.message for record in caplog.records]
        assert told.startswith(f"left for the next collection: pack {path.stem}: it is damaged")

    def test_what_is_due_is_done_once(self, store: Store) -> None:
        """And then not again until it is time."""
        with store:
            assert keeping.collect_if_due(store, KeepingSettings())
            assert not keeping.collect_if_due(store, KeepingSettings())


def test_maintenance_gives_way_but_the_threads_that_others_wait_for_do_not(tmp_path: Path) -> None:
    """The walks run when nobody wants the core; the committer, which holds the lock of all writers, as before."""
    script = """
import os, sys, threading
from pathlib import Path
from cas import Store
from tools.priority import give_way
with Store.open(Path(sys.argv[1]), create=True) as store:
    give_way()
    kinds = {thread.name: os.sched_getscheduler(thread.native_id) for thread in threading.enumerate()}
assert kinds.pop("MainThread") == os.SCHED_IDLE
assert set(kinds.values()) == {os.SCHED_OTHER}, kinds
"""
    with start_python(script, tmp_path / "root") as process:
        assert process.wait(60) == 0


@pytest.mark.parametrize("how", ["give_way(); burn()", "giving_way(burn)"], ids=["at work", "loading"])
def test_maintenance_lets_its_core_be_idle_now_and_then(how: str) -> None:
    """For moments, so that what waits for another core gets this one; and it ends as it would without."""
    script = f"""
import resource, time
from tools.priority import give_way, giving_way
def burn():
    while time.process_time() < 1: pass
{how}
assert resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw > 20
"""
    with start_python(script) as process:
        assert process.wait(60) == 0


def test_uploads_that_nobody_goes_on_with_are_told_and_ended_when_asked(server: StartServer, tmp_path: Path) -> None:
    """Without the option they wait for their clients; with it their bytes come back, and what is young stays."""
    root = tmp_path / "root"
    running = server(root)
    repository = new_repository()
    with closing(Client(running.url)) as client:
        places = [client.open(repository) for _ in range(3)]
        for place in places:
            assert client.patch(place, new_data(MIB)).status_code == 202
        ended = run_cas("gc", "--grace", "0", "--root", root)
        assert "kept: 3 unfinished uploads of 3.00 MiB, until 20" in ended.stdout
        assert "--uploads TIME ends those idle for longer" in ended.stdout
        assert gc(root, "--grace", "0", "--uploads", "1h")["uploads"]["ended"] == 0
        assert gc(root, "--grace", "0", "--uploads", "0", "--dry-run")["uploads"]["ended"] == 3
        assert client.held(places[0]) == MIB
        told = gc(root, "--grace", "0", "--uploads", "0")
        assert (told["uploads"]["ended"], told["uploads"]["unfinished"]["count"]) == (3, 0)
        assert told["bytes"]["bytes"] == 3 * MIB
        later = client.patch(places[0], new_data(10), content_range=f"{MIB}-{MIB + 9}")
        assert later.status_code == 416  # it holds nothing any more, and says so
        assert client.push(repository, new_data(MIB))
