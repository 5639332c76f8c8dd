"""A scrub that may not do what it would says what came of it and no more, and does it later."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cas import NoSpace, Store
from cas.disk import Disk
from tests.commands.test_scrub import OFTEN, grow_old, is_lost
from tests.support.engine import SMALL, flip, noise, packs_of, push
from tools import exits, scrubber


class FullDisk(Disk):
    """Has no room for one kind of thing."""

    lacks = ""

    def create(self, path: Path) -> int:
        self._refuse("create")
        return super().create(path)

    def rename_new(self, path: Path, to: Path) -> bool:
        self._refuse("rename")
        return super().rename_new(path, to)

    def _refuse(self, what: str) -> None:
        if what == self.lacks:
            raise NoSpace("the disk is full (planted)")


@pytest.mark.parametrize("lacks", ["create", "rename"])
def test_on_a_full_disk_nothing_is_said_to_be_set_aside_that_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lacks: str
) -> None:
    """Whatever there is no room for, a new pack or a name; once there is, it is done, and said."""
    root, disk = tmp_path / "root", FullDisk()
    with Store.open(root, SMALL, create=True) as store:
        digest = push(store, "a", noise(64 << 10))
    path = max(packs_of(root), key=lambda path: path.stat().st_size)
    flip(path, 20_000)
    grow_old(root)
    with Store.open(root, SMALL, disk=disk) as store:
        disk.lacks = lacks
        said = say(store, caplog, exits.FINDINGS)
        assert any("will be tried again: the disk is full" in line for line in said)
        assert not any("quarantine/" in line for line in said)
        assert (path.exists(), is_lost(store, digest)) == (True, lacks == "rename")
        missing = [line for line in said if "answer 404" in line]
        start = f"pack {path.stem} could not be set aside yet and will be; until they are pushed again, these answer"
        assert [line.startswith(start) and str(digest) in line for line in missing] == [True] * (lacks == "rename")
        assert store.is_scrub_due(1)
        disk.lacks = ""
        *_, line = say(store, caplog, exits.OK)  # what it was to remember of the first time may have had no room
        assert line.startswith("the damaged packs are in quarantine/; ")
        assert (path.exists(), is_lost(store, digest), store.is_scrub_due(1)) == (False, True, False)


def say(store: Store, caplog: pytest.LogCaptureFixture, code: int) -> list[str]:
    """Scrub; return the lines of the log."""
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        assert scrubber.scrub_if_due(store, OFTEN) == code
    return [record.getMessage() for record in caplog.records]
