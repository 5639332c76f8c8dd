"""An upload that nobody goes on with can be ended early, and never one that somebody is writing to."""

from __future__ import annotations

from pathlib import Path

import pytest

from cas import Superseded
from tests.support.engine import KIB, MIB, noise, opened
from tests.support.processes import start_python

ALL = float("inf")
NUMBERS = (1, 2**63 + 5, 2**64 - 1)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_request_under_way_keeps_its_upload_and_the_next_one_goes_on(number: int, tmp_path: Path) -> None:
    """From before its first byte is looked up until it is over, whatever was filed when."""
    data = noise(300 * KIB)
    with opened(tmp_path) as store:
        with store.resume(number) as upload:
            upload.write(data[: 200 * KIB])
            upload.suspend()
        del upload
        assert store.unfinished().count == 1
        assert store.expire_uploads(ALL, 0, dry_run=True) == 1
        with store.resume(number) as upload:
            assert store.expire_uploads(ALL, 0, dry_run=True) == 0
            assert store.expire_uploads(ALL, 0) == 0
            upload.write(data[200 * KIB :])
            assert store.expire_uploads(ALL, 0) == 0
            upload.suspend()
        del upload
        assert (store.unfinished().count, store.unfinished().bytes) == (1, len(data))
        assert store.expire_uploads(ALL, 0) == 1
        assert store.unfinished().count == 0


def test_of_several_at_one_upload_the_last_to_leave_lets_go(tmp_path: Path) -> None:
    """As when a client gave up on a request that goes on here, and began another."""
    with opened(tmp_path) as store:
        with store.resume(7) as upload:
            upload.write(noise(KIB))
            upload.suspend()
        first, second = store.resume(7), store.resume(7)
        first.discard()
        del first, upload
        assert store.expire_uploads(ALL, 0) == 0
        second.discard()
        del second
        assert store.expire_uploads(ALL, 0) == 1


def test_another_process_is_seen_while_it_lives(tmp_path: Path) -> None:
    """Its death lets go, with nobody's help."""
    program = (
        "import sys; from pathlib import Path; from tests.support.engine import *\n"
        "with opened(Path(sys.argv[1])) as store:\n"
        "    with store.resume(7) as upload: upload.write(noise(3 * MIB)); upload.suspend()\n"
        "    upload = store.resume(7); print('writing'); sys.stdin.read()\n"
    )
    with opened(tmp_path) as store:
        other = start_python(program, tmp_path)
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "writing\n"
        assert store.expire_uploads(ALL, 0) == 0
        assert store.unfinished().bytes == 3 * MIB
        other.kill()
        other.wait(30)
        other.stdin.close()
        other.stdout.close()
        assert store.expire_uploads(ALL, 0) == 1


def test_who_comes_when_it_was_ended_is_told_so(tmp_path: Path) -> None:
    """A request that found the upload a moment before loses what it sends, and says so; nothing of it is kept."""
    with opened(tmp_path) as store:
        with store.resume(7) as upload:
            upload.write(noise(200 * KIB))
            upload.suspend()
        late = store.resume(7)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store._parts.hands, "are_at", lambda _number: False)  # noqa: SLF001 - it looked before
            assert store.expire_uploads(ALL, 0) == 1
        late.write(noise(200 * KIB, 1))
        with pytest.raises(Superseded):
            late.suspend()
        late.discard()
        assert store.unfinished().count == 0
