"""Resumable uploads whose processes are killed: another goes on from what was acknowledged (I1, I2, I7)."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest

from cas import Digest, Name, Names, Record, Staged, Store, UploadState, rebuild_index
from tests.support.engine import KIB, SMALL, noise, opened, prose, push, read
from tests.support.processes import run_module, start_python

CONTENT = noise(250 * KIB, 3) + prose(350 * KIB, 4) + noise(40 * KIB, 5)
SESSION = 4711
STEP = 130 * KIB


def finish(store: Store, path: str) -> Digest:
    """Send what is missing and name it."""

    def edit(names: Names, staged: Staged) -> Digest:
        names.put(Name("thing", path), Record(path.encode(), (staged.digest,), staged.size))
        return staged.digest

    with store.resume(SESSION) as upload:
        upload.write(CONTENT[upload.size :])
        return upload.keep(Digest.of(CONTENT), edit)


def acknowledged(output: str) -> int:
    """The last size that a killed sender was told."""
    return max((int(line.split()[1]) for line in output.splitlines() if line.startswith("safe")), default=0)


@pytest.mark.parametrize("kill_at", range(22))
def test_an_upload_goes_on_wherever_its_process_was_killed(kill_at: int, tmp_path: Path) -> None:
    """Killed at a numbered disk operation: nothing acknowledged is missing, and the right bytes come of it."""
    root = tmp_path / "root"
    sender = run_module("sender", root, SESSION, kill_at)
    assert sender.returncode == -signal.SIGKILL, sender.stderr
    with opened(root) as store:
        progress = store.progress(SESSION)
        assert (0 if progress is None else progress.size) >= acknowledged(sender.stdout)
    second = run_module("sender", root, SESSION, 3)  # goes on, and is killed as well
    assert second.returncode in (-signal.SIGKILL, 0), second.stderr
    with opened(root) as store:
        progress = store.progress(SESSION)
        assert (0 if progress is None else progress.size) >= acknowledged(second.stdout) >= 0
        if progress is None or progress.state is UploadState.OPEN:
            assert finish(store, "sent") == Digest.of(CONTENT)
        assert read(store, Digest.of(CONTENT)) == CONTENT
    for path in (root / "index").iterdir():
        path.unlink()
    assert rebuild_index(root, SMALL).damaged == []
    with opened(root) as store:
        assert [name.path for name, _ in store.scan("thing")] == ["sent"]
        assert read(store, Digest.of(CONTENT)) == CONTENT


def test_a_survivor_goes_on_at_once(tmp_path: Path) -> None:
    """No tick, no reopening, no lease to wait for: it sees what the dead process filed and takes it from there."""
    with opened(tmp_path) as store:
        push(store, "own", noise(90 * KIB))
        sender = run_module("sender", tmp_path, SESSION, 11)
        assert sender.returncode == -signal.SIGKILL
        progress = store.progress(SESSION)
        assert progress is not None
        assert progress.size >= acknowledged(sender.stdout) > 0
        finish(store, "sent")
        assert read(store, Digest.of(CONTENT)) == CONTENT
        store.tick()
        assert read(store, Digest.of(CONTENT)) == CONTENT


def test_requests_may_alternate_between_processes(tmp_path: Path) -> None:
    """Two workers on one store, piece by piece by turns; a third ends it."""
    script = """
import sys
from pathlib import Path
from cas import Store
from tests.crash.test_sessions import CONTENT, SESSION
from tests.support.engine import SMALL
with Store.open(Path(sys.argv[1]), SMALL) as store:
    print("ready")
    for line in sys.stdin:
        start, stop = map(int, line.split())
        with store.resume(SESSION) as upload:
            assert upload.size == start
            upload.write(CONTENT[start:stop])
            print(upload.suspend())
"""
    with opened(tmp_path) as store:
        workers = [start_python(script, tmp_path) for _ in range(2)]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        cuts = [0, 500, 900, 70_000, 70_001, 300_000, 420_000, 500_000]
        for n, (start, stop) in enumerate(itertools.pairwise(cuts)):
            worker = workers[n % 2]
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(f"{start} {stop}\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == f"{stop}\n"
        for worker in workers:
            worker.communicate()
            assert worker.returncode == 0
        finish(store, "sent")
        assert read(store, Digest.of(CONTENT)) == CONTENT
