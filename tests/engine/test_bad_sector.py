"""I9: a pack that the disk refuses to read is named as just that, by everybody who looks for its records."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cas import Depth, Digest, Name, Store, Unreadable, rebuild_index
from cas.records import HEADER_SIZE, Role
from tests.support.engine import KIB, SMALL, noise, opened, packs_of, prose, push, read
from tests.support.processes import run_to_its_death

CONTENT = noise(500 * KIB)


def make(root: Path) -> dict[Role, Path]:
    """A closed store with two names; return a pack of each role, whose records lie behind their first block."""
    with opened(root) as store:
        push(store, "one", CONTENT)
        push(store, "two", prose(300 * KIB))
        packs = {row.pack: row.role for row in store._parts.index.read(lambda view: view.packs())}  # noqa: SLF001
    return {packs[int(path.stem, 16)]: path for path in packs_of(root)}


PREAD, PREADV = os.pread, os.preadv
ROLES = pytest.mark.parametrize("role", list(Role))


@contextmanager
def refusing(path: Path, start: int = HEADER_SIZE) -> Iterator[None]:
    """Have the disk refuse whatever lies in a file from a byte on."""
    bad = path.stat()

    def check(fd: int, count: int, offset: int) -> None:
        if os.path.samestat(os.fstat(fd), bad) and offset + count > start:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def pread(fd: int, count: int, offset: int) -> bytes:
        check(fd, count, offset)
        return PREAD(fd, count, offset)

    def preadv(fd: int, buffers: Sequence[bytearray | memoryview], offset: int, *flags: int) -> int:
        check(fd, sum(map(len, buffers)), offset)
        return PREADV(fd, buffers, offset, *flags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", pread)
        patch.setattr(os, "preadv", preadv)
        yield


@ROLES
@pytest.mark.parametrize("depth", list(Depth))
def test_a_check_tells_a_bad_sector_from_damage(tmp_path: Path, role: Role, depth: Depth) -> None:
    """Neither the index nor the journal is blamed for what cannot be read, and nothing is to be set aside."""
    path = make(tmp_path)[role]
    with opened(tmp_path) as store:
        with refusing(path):
            found = list(store.check(depth))
        assert {finding.check for finding in found} == {"unreadable"}
        assert any(path.stem in finding.where for finding in found)
        assert not list(store.check(Depth.DEEP))


@ROLES
def test_repair_leaves_what_the_disk_refuses_where_it_is(tmp_path: Path, role: Role) -> None:
    """It may be read again once the disk was seen to."""
    path = make(tmp_path)[role]
    with opened(tmp_path) as store:
        with refusing(path):
            report = store.repair(Depth.DATA)
        assert not report.packs
        assert not report.lost
        assert path.exists()
        assert not list(store.check(Depth.DEEP))


@ROLES
def test_a_collection_leaves_the_pack_alone_and_empties_others(tmp_path: Path, role: Role) -> None:
    """With the reason; the next run has it done."""
    path = make(tmp_path)[role]
    with opened(tmp_path) as store:
        store.change(lambda names: names.delete(Name("thing", "two")))
        store.collect()
        with refusing(path):
            report = store.compact(everything=True)
        assert [line for line in report.left if path.stem in line and "Input/output error" in line]
        assert path.exists()
        assert not store.compact(everything=True).left
        assert read(store, Digest.of(CONTENT)) == CONTENT


@ROLES
def test_a_rebuild_ends_and_names_the_pack(tmp_path: Path, role: Role) -> None:
    """Without what is in it things would be missing, or deleted ones come back; the old index stays."""
    path = make(tmp_path)[role]
    with refusing(path), pytest.raises(Unreadable, match=path.name):
        rebuild_index(tmp_path, SMALL, force=True)
    with Store.open(tmp_path, SMALL) as store:
        assert not list(store.check(Depth.DEEP))


# Dies after a change whose record is durable and whose commit never came; a power cut then takes its number's note.
DIES = """
import os, signal, sys
from pathlib import Path
from cas import Name, Record
from tests.support.engine import SMALL, opened, prose, push
from tests.support.faults import before_commits
with opened(Path(sys.argv[1])) as store:
    push(store, "one", prose(90_000))
    before_commits(store, lambda: os.kill(os.getpid(), signal.SIGKILL))
    store.change(lambda names: [names.put(Name("thing", f"never {n}"), Record(b"")) for n in range(9)])
"""


def test_a_journal_that_the_disk_refuses_keeps_nobody_out(tmp_path: Path) -> None:
    """The index has what counts. What never counted never will, should the disk read it again one day (I2, I4)."""
    run_to_its_death(DIES, tmp_path)
    (path,) = packs_of(tmp_path, Role.JOURNAL)
    (tmp_path / "locks" / "journal").write_bytes(bytes(8))
    with refusing(path), opened(tmp_path) as store:
        assert read(store, Digest.of(prose(90_000))) == prose(90_000)
        push(store, "two", CONTENT)
        assert {finding.check for finding in store.check()} == {"unreadable"}
        assert store.stats().doubted == 1
    with opened(tmp_path) as store:
        assert list(store.check(Depth.DEEP)) == []
    rebuild_index(tmp_path, SMALL, force=True)
    with opened(tmp_path) as store:
        assert {name.path for name, _ in store.scan("thing")} == {"one", "two"}


def test_usage_names_the_pack(tmp_path: Path) -> None:
    """What it takes cannot be told."""
    path = make(tmp_path)[Role.DATA]
    with opened(tmp_path) as store, refusing(path), pytest.raises(Unreadable, match=path.name):
        store.usage({}, 0)
