"""`cas gc`, by hand and on a server's schedule: what nothing needs goes, and its space comes back."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from api import maintenance
from api.content.settings import KeepingSettings
from cas import DiskFailed, InUse, Store
from cas.layout import Layout
from cas.lease import maintenance_lock
from tests.support.engine import noise
from tests.support.serving import StartServer, run_cas
from tests.wire.v2.content import Home
from tests.wire.v2.pushing import Client, new_data, new_repository
from tools import keeping

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
        assert done["bytes"]["blobs"] == 2
        assert pack_bytes(root) <= before - 8 * MIB
        assert kept.get("some").content == kept.numbered(1).body
        assert gc(root, "--grace", "0")["bytes"]["bytes"] == 0


def test_what_is_said_for_people_names_what_and_why(tmp_path: Path, server: StartServer) -> None:
    """Counts, reasons, sizes; a dry run says that it is one."""
    running = server(tmp_path / "root")
    with closing(Client(running.url)) as client:
        client.push(new_repository(), new_data(100_000))
    said = run_cas("gc", "--grace", "0s", "--dry-run", "--root", running.root).stdout
    assert f"1  {LINKS}" in said
    assert "nothing was removed: this was a dry run" in said
    said = run_cas("gc", "--grace", "0s", "--root", running.root).stdout
    assert "1  blobs that nothing holds" in said
    assert "removed; given back to the disk: " in said


def test_a_second_one_is_told_that_there_is_one(tmp_path: Path) -> None:
    """In one line, with the exit code of what can be tried again."""
    Store.open(tmp_path / "root", create=True).close()
    with maintenance_lock(Layout(tmp_path / "root")):
        ended = run_cas("gc", "--root", tmp_path / "root")
    assert (ended.returncode, ended.stdout) == (75, "")
    assert ended.stderr.startswith("cas: a collection, ")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("grace", ["", "soon", "-1", "1w", "nan"])
def test_a_grace_that_is_no_time_is_refused(tmp_path: Path, grace: str) -> None:
    """Nothing is guessed where the guess removes things."""
    ended = run_cas("gc", "--grace", grace, "--root", tmp_path)
    assert ended.returncode == 2
    assert "is not a time, such as 0, 90s, 30m, 12h or 7d" in ended.stderr


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

    def test_a_worker_collects_and_goes_on_serving_whatever_fails(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A full disk, another process at it, our own bug: logged where it matters, and tried again."""
        errors: list[Exception] = [DiskFailed("no"), InUse("another"), RuntimeError("bug")]
        tried = threading.Event()

        def run(*_: object, **__: object) -> None:
            if errors:
                raise errors.pop(0)
            tried.set()
            raise InUse("enough")

        monkeypatch.setattr(maintenance, "run", run)
        with store, caplog.at_level(logging.WARNING), keeping.collecting(store, KeepingSettings(), look_s=0.001):
            assert tried.wait(30)
        assert [record.message for record in caplog.records if record.name == "cas.keeping"] == [
            "a collection failed and will be tried again: no",
            "a collection failed and will be tried again",
        ]

    def test_a_server_that_stops_does_not_wait_for_the_end_of_a_collection(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next step of it is the last."""
        began = threading.Event()

        def run(*_: object, progress: Callable[[], object], **__: object) -> None:
            while True:
                began.set()
                progress()

        monkeypatch.setattr(maintenance, "run", run)
        with store, keeping.collecting(store, KeepingSettings(), look_s=0.001):
            assert began.wait(30)

    def test_what_is_due_is_done_once(self, store: Store) -> None:
        """And then not again until it is time."""
        with store:
            assert keeping.collect_if_due(store, KeepingSettings())
            assert not keeping.collect_if_due(store, KeepingSettings())
