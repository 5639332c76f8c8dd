"""A folder that is no sound store is refused with reason and remedy; a sound one opens, whatever it went through."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import lmdb
import pytest

import cas.check
import cas.disk
import cas.locks
import cas.packs
import cas.root
import cas.store
from cas import (
    DiskFailed,
    Forbidden,
    FormatTooNew,
    IndexMissing,
    IndexPresent,
    InUse,
    NoSpace,
    NotAStore,
    NotOwner,
    OpenError,
    RootReadOnly,
    Store,
    Unreadable,
    UnsafeFilesystem,
    environment,
    inspect_index,
    rebuild_index,
)
from cas.commit import JOURNAL_SEQ
from cas.disk import Disk
from cas.layout import Layout
from cas.lease import survey
from cas.locks import lock_folder
from cas.mounts import filesystem_type
from cas.tables import PackState
from tests.support.dump import leftovers, pack_sizes
from tests.support.engine import KIB, MIB, SMALL, noise, opened, push, read
from tests.support.processes import can_mount, run_python, start_python

OTHER = bytes(range(16))  # a process that is not there

NEWCOMER = """
import sys
from pathlib import Path
from cas import EngineSettings, InUse, Store, inspect_index, rebuild_index
def inspect(root): inspect_index(root, EngineSettings(), reading=True)
root = Path(sys.argv[1])
try:
    Store.open(root)
except InUse as error:
    print(error)
"""


def make(root: Path) -> None:
    """A closed store with one blob under the name `kept`."""
    with opened(root) as store:
        push(store, "kept", noise(200 * KIB))


def remove(root: Path, what: str) -> None:
    for path in root.glob(what):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def raises(error: Exception, *_: object) -> None:
    raise error


class TestRefusals:
    """Each refusal names what to do, and nothing in the folder was changed."""

    def test_a_folder_that_does_not_exist_is_not_made_unasked(self, tmp_path: Path) -> None:
        """Without `create` the error names the command that makes a store."""
        with pytest.raises(
            NotAStore, match="does not exist; name your store by --root or CAS_ROOT, or let `cas serve --root"
        ):
            Store.open(tmp_path / "nowhere")
        assert not (tmp_path / "nowhere").exists()

    def test_a_file_is_no_store(self, tmp_path: Path) -> None:
        """A file in the folder's place is told apart from a missing folder."""
        (tmp_path / "file").write_text("x")
        with pytest.raises(NotAStore, match="is a file; give --root a folder"):
            Store.open(tmp_path / "file", create=True)

    @pytest.mark.parametrize("create", [True, False])
    def test_a_folder_of_something_else_is_left_alone(self, create: bool, tmp_path: Path) -> None:
        """Nobody's home directory becomes a store by accident."""
        (tmp_path / "thesis.txt").write_text("x")
        with pytest.raises(NotAStore, match="give --root a store, or an empty or new folder"):
            Store.open(tmp_path, create=create)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_an_empty_folder_becomes_a_store_only_when_asked(self, tmp_path: Path) -> None:
        """An unmounted disk is an empty folder: without `create` it is refused, and said to be that."""
        with pytest.raises(NotAStore, match=f"is empty; mount its disk, or let `cas serve --root {tmp_path}` make"):
            Store.open(tmp_path)
        Store.open(tmp_path, SMALL, create=True).close()

    def test_packs_without_a_manifest_are_not_taken_for_a_new_store(self, tmp_path: Path) -> None:
        """A lost store.json must not make a second identity over the old data."""
        make(tmp_path)
        (tmp_path / "store.json").unlink()
        with pytest.raises(NotAStore):
            Store.open(tmp_path, create=True)

    def test_a_newer_format_is_refused_with_both_versions(self, tmp_path: Path) -> None:
        """The store of a newer version is never touched."""
        make(tmp_path)
        content = json.loads((tmp_path / "store.json").read_text())
        del content["sum"]
        (tmp_path / "store.json").write_text(json.dumps(content | {"format": 7}))
        with pytest.raises(FormatTooNew, match="has store format 7, this version knows up to 1; upgrade cas"):
            Store.open(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"[]", b"7", b"{}", b'{"format": 1}', b'{"format": "x", "id": ""}', b'{"format": 0, "id": "00"}'],
    )
    def test_a_mangled_manifest_is_refused(self, content: bytes, tmp_path: Path) -> None:
        """Whatever stands in store.json, the error says that it is that file, and what to do."""
        make(tmp_path)
        (tmp_path / "store.json").write_bytes(content)
        with pytest.raises(
            NotAStore, match=r"store\.json is not a store's manifest.*cas fsck --repair.*restore it from a backup"
        ):
            Store.open(tmp_path, create=True)

    @pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "fuse.gcsfuse"])
    def test_a_network_filesystem_is_refused_by_name(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Locks and maps cannot be trusted there, so not even a new store is made."""
        monkeypatch.setattr(cas.root.find, "__kwdefaults__", {"filesystem": lambda path: kind})
        with pytest.raises(UnsafeFilesystem, match=rf"network filesystem \({kind}\).*use a local disk"):
            Store.open(tmp_path, create=True)
        assert list(tmp_path.iterdir()) == []

    def test_a_filesystem_without_memory_maps_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As mergerfs is with its cache off: not told as a broken disk, and a store once it is mounted otherwise."""

        def refused(path: bytes, **_: object) -> None:
            raise lmdb.Error(f"{os.fsdecode(path)}: {os.strerror(errno.ENODEV)}")

        monkeypatch.setattr(lmdb, "open", refused)
        with pytest.raises(
            UnsafeFilesystem,
            match=r"index has no memory maps \(mergerfs needs cache.files=auto-full\); use another disk",
        ):
            Store.open(tmp_path, create=True)
        monkeypatch.undo()
        Store.open(tmp_path, create=True).close()

    def test_a_mount_that_gives_all_to_somebody_else_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As that of a disk without owners: its store would be opened once, then never again, whatever is chowned."""
        own = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: own)
        for _ in range(2):
            with pytest.raises(NotOwner, match=rf"as that is mounted; mount it with the option uid={own}, or choose"):
                Store.open(tmp_path, create=True)
        monkeypatch.undo()
        Store.open(tmp_path, create=True).close()

    def test_the_filesystem_is_that_of_the_nearest_mount(self, tmp_path: Path) -> None:
        """The longest mount point wins, the last of equals, and a space in it is understood."""
        place = tmp_path / "with space"
        place.mkdir()
        mounts = [
            f"20 1 0:1 / {point} rw - {kind} none rw"
            for point, kind in (("/", "ext4"), (str(tmp_path), "xfs"), (str(place).replace(" ", "\\040"), "nfs4"))
        ]
        assert filesystem_type(place, "\n".join(mounts)) == "nfs4"
        assert filesystem_type(tmp_path, "\n".join(mounts)) == "xfs"
        assert filesystem_type(Path("/"), "\n".join(mounts)) == "ext4"
        mounts.append(f"21 1 0:2 / {tmp_path} rw - tmpfs none rw")
        assert filesystem_type(tmp_path, "\n".join(mounts)) == "tmpfs"

    def test_a_folder_of_webdav_is_known_as_such(self) -> None:
        """Its program gives no name to the kernel, only the address; a local disk of that kind has none."""
        mount = "20 1 0:1 / / rw - fuse {} rw"
        assert filesystem_type(Path("/"), mount.format("https://dav.example/files")) == "fuse.davfs2"
        assert filesystem_type(Path("/"), mount.format("/dev/sdb1")) == "fuse"

    @pytest.mark.parametrize("mount", [True, False])
    def test_a_read_only_mount_is_refused(self, mount: bool, tmp_path: Path) -> None:
        """A store on a filesystem mounted read-only: said at once, also to root.

        A real mount, where the kernel lets us make one in a namespace of our own; else one that says it is read-only.
        """
        mount = mount and can_mount()
        make(tmp_path)
        script = """
import os, subprocess, sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from cas import RootReadOnly, Store
root = Path(sys.argv[1])
if sys.argv[2] == "True":
    subprocess.run(["mount", "--bind", root, root], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True)
else:
    os.statvfs = lambda path: SimpleNamespace(f_flag=os.ST_RDONLY)
try:
    Store.open(root)
except RootReadOnly as error:
    assert "that is read-only; mend the mount" in str(error), error
    print("refused")
"""
        assert run_python(script, tmp_path, str(mount), mounts=mount).stdout == "refused\n"

    def test_a_read_only_snapshot_is_refused_as_such(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One of btrfs, that is: its mount can be written to, and modes do not keep anybody out."""
        make(tmp_path)
        really = os.open

        def opened(path: str | Path, flags: int, *more: Any, **others: Any) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return really(path, flags, *more, **others)

        monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
        monkeypatch.setattr(os, "open", opened)
        with pytest.raises(RootReadOnly, match="lies on a mount, or in a snapshot, that is read-only"):
            Store.open(tmp_path)

    def test_a_folder_without_permission_is_refused(self) -> None:
        """A user who may read but not write is told so."""
        script = """
import os, sys
from pathlib import Path
from cas import RootReadOnly, Store
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    Store.open(Path(sys.argv[1]))
except RootReadOnly as error:
    print("refused" if "mend its permissions: chmod u+rwx" in str(error) else error)
"""
        with tempfile.TemporaryDirectory() as folder:  # not under tmp_path, which other users may not enter
            make(Path(folder))
            if os.geteuid() == 0:
                for path in (Path(folder), *Path(folder).rglob("*")):
                    os.chown(path, 65534, 65534)
            Path(folder).chmod(0o555)
            assert run_python(script, folder).stdout == "refused\n"
            Path(folder).chmod(0o755)

    @pytest.mark.parametrize("lost", ["data.mdb", ""])
    def test_a_lost_index_is_refused_with_the_command_that_rebuilds_it(self, lost: str, tmp_path: Path) -> None:
        """Its file or its folder: an empty index in its place would look like a store without blobs."""
        make(tmp_path)
        if lost:
            (tmp_path / "index" / lost).unlink()
        else:
            shutil.rmtree(tmp_path / "index")
        with pytest.raises(IndexMissing, match=r"`cas fsck --rebuild-index --root .*` makes it anew"):
            Store.open(tmp_path, create=True)
        assert rebuild_index(tmp_path, SMALL).damaged == []
        with opened(tmp_path) as store:
            assert len(store.scan("thing")) == 1

    def test_an_index_lost_while_an_opener_waited_is_not_replaced_by_an_empty_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A rebuild moves the index aside and is cut off, and the opener that waited for it comes next."""
        make(tmp_path)

        @contextmanager
        def after_a_cut_off_rebuild(path: Path, wait_s: float) -> Iterator[None]:
            with lock_folder(path, wait_s):
                shutil.rmtree(tmp_path / "index")
                yield

        with monkeypatch.context() as patch:
            patch.setattr(cas.store, "lock_folder", after_a_cut_off_rebuild)
            with pytest.raises(IndexMissing):
                Store.open(tmp_path, SMALL)
        assert rebuild_index(tmp_path, SMALL).blobs == 1

    def test_a_second_opening_in_one_process_is_refused(self, tmp_path: Path) -> None:
        """Clearly, by whatever path, and without harm to the first; after closing the first it opens."""
        root, alias = tmp_path / "root", tmp_path / "alias"
        alias.symlink_to(root)
        with opened(root) as store:
            for path in (root, alias):
                with pytest.raises(InUse, match="open in this process already; share that Store object, or close it"):
                    Store.open(path)
            digest = push(store, "kept", noise(200 * KIB))
            assert read(store, digest) == noise(200 * KIB)
            alive = [path for path in (root / "locks").iterdir() if len(path.name) == 32]
            assert len(alive) == 1
        with opened(alias) as store:
            assert read(store, digest) == noise(200 * KIB)

    def test_a_store_in_use_is_not_rebuilt_nor_is_one_that_has_an_index(self, tmp_path: Path) -> None:
        """A rebuild wants the store alone, and the old index out of the way."""
        with opened(tmp_path), pytest.raises(InUse, match="stop the server first"):
            rebuild_index(tmp_path, SMALL)
        with pytest.raises(IndexPresent, match="is there already"):
            rebuild_index(tmp_path, SMALL)

    @pytest.mark.parametrize(
        "gone", [["index/lock.mdb"], ["locks"], ["locks/*"], ["locks", "index/lock.mdb"]], ids=" ".join
    )
    @pytest.mark.parametrize(
        "come",
        ["Store.open(root)", "Store.open(root, reading=True)", "inspect(root)", "rebuild_index(root, force=True)"],
    )
    def test_a_store_whose_locks_went_under_others_is_refused_to_newcomers(
        self, come: str, gone: list[str], tmp_path: Path
    ) -> None:
        """They would make some of their own, wait for nobody, and write over or take what others rely on."""
        script = NEWCOMER.replace("Store.open(root)", come)
        with opened(tmp_path) as store:
            digest = push(store, "kept", noise(200 * KIB))
            for what in gone:
                remove(tmp_path, what)
            told = run_python(script, tmp_path).stdout
            assert f"{tmp_path / gone[0].removesuffix('/*')} was removed while the store is open" in told
            assert "stop them all" in told
            assert [path for what in gone for path in tmp_path.glob(what)] == []
            assert read(store, digest) == noise(200 * KIB)
        assert run_python(script, tmp_path).stdout == ""

    def test_who_has_a_store_open_whose_locks_went_reads_on_and_says_what_to_do(self, tmp_path: Path) -> None:
        """It takes no pack that another one could take too, and buries nobody whose lease went with its own."""
        with opened(tmp_path) as store:
            digest = push(store, "kept", noise(200 * KIB))
            store._parts.index.write(lambda edit: edit.put_upload(7, OTHER))
            remove(tmp_path, "locks")
            for size in (200 * KIB, 1):  # the latter goes into a journal that is open
                with pytest.raises(DiskFailed, match=r"^locks was removed while .* stop them all .*, then start anew$"):
                    push(store, "new", noise(size, 1))
            with pytest.raises(DiskFailed, match="locks was removed while"):
                store.is_scrub_due(float("inf"))
            (tmp_path / "locks").mkdir()
            with pytest.raises(DiskFailed, match=r"^locks was removed while"):
                store.tick()
            assert store._parts.index.read(lambda view: view.uploads()) == [(7, OTHER)]
            assert read(store, digest) == noise(200 * KIB)
        with Store.open(tmp_path, SMALL) as store:
            assert leftovers(store) == []
            assert read(store, push(store, "new", noise(200 * KIB, 1))) == noise(200 * KIB, 1)

    def test_a_push_to_what_became_read_only_is_told_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As kernels make a filesystem that has an error: not that there are too many open files."""
        refused = partial(raises, OSError(errno.EROFS, os.strerror(errno.EROFS)))
        with opened(tmp_path) as store:
            for module in (cas.locks, cas.packs):
                monkeypatch.setattr(module, "open_or_make", refused)
            with pytest.raises(Forbidden, match=r"^cannot lock a pack: Read-only file system; mend owner, permissions"):
                push(store, "new", noise(200 * KIB))
            monkeypatch.undo()
            assert read(store, push(store, "new", noise(200 * KIB))) == noise(200 * KIB)

    def test_who_has_a_store_open_that_was_moved_away_writes_to_none_in_its_place(self, tmp_path: Path) -> None:
        """Say, an older one was restored there: neither what it acknowledges then, nor where its packs would lie."""
        root, away = tmp_path / "root", tmp_path / "away"
        with opened(root) as store:
            push(store, "kept", noise(200 * KIB))
        shutil.copytree(root, tmp_path / "older")
        with opened(root) as store:
            digest = push(store, "before", noise(200 * KIB, 1))
            root.rename(away)
            (tmp_path / "older").rename(root)
            before = pack_sizes(root)
            for size in (200 * KIB, 1):
                with pytest.raises(DiskFailed, match=r"^locks was removed while"):
                    push(store, "after", noise(size, 2))
        assert pack_sizes(root) == before
        with opened(root) as store:
            assert [name.path for name, _ in store.scan("thing")] == ["kept"]
        with opened(away) as store:
            assert [name.path for name, _ in store.scan("thing")] == ["before", "kept"]
            assert read(store, digest) == noise(200 * KIB, 1)

    def test_who_has_a_copy_in_the_place_of_its_store_does_not_write_there(self, tmp_path: Path) -> None:
        """It was moved away and copied back, leases and all: packs would go there, and what tells of them would not."""
        root, away = tmp_path / "root", tmp_path / "away"
        with opened(root) as store:
            push(store, "before", b"before")
            root.rename(away)
            shutil.copytree(away, root)
            with pytest.raises(DiskFailed, match=r"^locks was removed while"):
                push(store, "after", noise(200 * KIB, 2))
            with pytest.raises(DiskFailed, match=r"^locks was removed while"):
                store.tick()
            shutil.rmtree(root)
            away.rename(root)
            push(store, "again", b"again")
        with opened(root) as store:
            assert [name.path for name, _ in store.scan("thing")] == ["again", "before"]

    def test_who_lost_its_lease_alone_is_not_taken_for_dead(self, tmp_path: Path) -> None:
        """Say, since it is the older one, and somebody tidies up by age: its packs stay open, and its uploads there."""
        script = """
import sys
from pathlib import Path
from cas import DiskFailed, Store
from tests.support.engine import KIB, SMALL, prose
with Store.open(Path(sys.argv[1]), SMALL) as store, store.upload() as upload:
    upload.write(prose(600 * KIB))
    upload._runs.settle()
    print(flush=True)
    sys.stdin.readline()
    try:
        upload.write(prose(600 * KIB, 1))
        upload.finish()
    except DiskFailed as error:
        print(error, flush=True)
"""
        make(tmp_path)
        with start_python(script, tmp_path) as older, Store.open(tmp_path, SMALL) as store:
            assert older.stdin is not None
            assert older.stdout is not None
            older.stdout.readline()
            (lease,) = survey(Layout(tmp_path), store._parts.owner)[0]
            rows = store._parts.index.read(lambda view: (view.packs(), view.uploads()))
            assert lease in {row.owner for row in rows[0] if row.state is PackState.OPEN}
            assert lease in {owner for _, owner in rows[1]}
            Layout(tmp_path).lease(lease).unlink()
            store.tick()
            assert store._parts.index.read(lambda view: (view.packs(), view.uploads())) == rows
            told = run_python(NEWCOMER, tmp_path).stdout
            assert "locks was removed while the store is open" in told
            older.stdin.write("\n")
            older.stdin.flush()
            assert "locks was removed while the store is open" in older.stdout.readline()
        with Store.open(tmp_path, SMALL) as store:
            assert leftovers(store) == []

    def test_who_only_looks_at_the_pages_of_an_index_is_seen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a newcomer would take it for somebody whose locks went."""
        make(tmp_path)
        seen: list[int] = []
        look = environment.inspect

        def inspect(path: Path, *arguments: Any, **more: Any) -> str | None:
            seen.append(len(survey(Layout(tmp_path), b"")[0]))
            return look(path, *arguments, **more)

        monkeypatch.setattr(cas.check, "inspect", inspect)
        assert inspect_index(tmp_path, SMALL, reading=True) is None
        assert seen == [1]
        assert survey(Layout(tmp_path), b"") == (set(), set())

    def test_every_refusal_is_an_open_error(self) -> None:
        """Callers catch one class."""
        for kind in (NotAStore, FormatTooNew, UnsafeFilesystem, IndexMissing, RootReadOnly, InUse):
            assert issubclass(kind, OpenError)


class TestRecoveries:
    """What needs no human: it just opens."""

    @pytest.mark.parametrize(
        ("module", "verb"),
        [(cas.root, "_make_missing"), (cas.root, "write_file"), (cas.store, "Index"), (cas.store, "settle")],
    )
    def test_an_interrupted_creation_is_completed_by_the_next_opener(
        self, module: ModuleType, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed before the folders, before the manifest or while it is written, before and after the index."""

        class Killed(BaseException):
            pass

        def kill(*_: object, **__: object) -> None:
            raise Killed

        (tmp_path / "store.json.new").write_bytes(b'{"form')
        with monkeypatch.context() as patch:
            patch.setattr(module, verb, kill)
            with pytest.raises(Killed):
                Store.open(tmp_path, SMALL, create=True)
        make(tmp_path)
        with Store.open(tmp_path) as store:
            assert len(store.scan("thing")) == 1

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    @pytest.mark.parametrize("where", ["root", "locks", "index", "store.json"])
    def test_a_full_disk_is_no_matter_of_permissions(
        self, where: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever of a new store has no room: that is said, and once there is, the same call makes it."""
        make, write = Path.mkdir, cas.disk.write_file

        def refuse(path: Path) -> None:
            if path.name == where:
                raise OSError(number, os.strerror(number), str(path))

        def mkdir(path: Path, *arguments: Any, **more: Any) -> None:
            refuse(path)
            make(path, *arguments, **more)

        def write_file(path: Path, data: bytes) -> None:
            refuse(path)
            write(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", mkdir)
            patch.setattr(cas.root, "write_file", write_file)
            with pytest.raises(NoSpace, match="the disk is full"):
                Store.open(tmp_path / "root", SMALL, create=True)
        Store.open(tmp_path / "root", SMALL, create=True).close()

    def test_a_killed_store_opens_on_a_full_disk_and_is_settled_once_there_is_room(self, tmp_path: Path) -> None:
        """What is there can be read, which needs no byte; and nothing that never counted comes to count."""

        class Full(Disk):
            def create(self, path: Path) -> int:
                raise NoSpace(f"planted: {path}")

        with opened(tmp_path / "root") as store:
            digest = push(store, "kept", noise(200 * KIB))
            shutil.copytree(tmp_path / "root", tmp_path / "killed")
        cell = tmp_path / "killed" / "locks" / "journal"
        cell.write_bytes((7).to_bytes(8, "big"))
        with Store.open(tmp_path / "killed", SMALL, disk=Full()) as store:
            assert read(store, digest) == noise(200 * KIB)
            with pytest.raises(NoSpace):
                push(store, "more", noise(200 * KIB, 1))
        with Store.open(tmp_path / "killed", SMALL) as store:
            assert store._parts.index.read(lambda view: view.number(JOURNAL_SEQ)) == 8
            assert read(store, digest) == noise(200 * KIB)

    @pytest.mark.parametrize("lost", ["locks", "locks/journal", "packs", "index/lock.mdb"])
    def test_what_an_operator_tidied_away_is_made_again(self, lost: str, tmp_path: Path) -> None:
        """Lock files and empty folders are no data: a store opens without them."""
        with opened(tmp_path) as store:
            store.change(lambda names: None)
            if lost != "packs":
                push(store, "kept", noise(200 * KIB))
        path = tmp_path / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with Store.open(tmp_path, SMALL) as store:
            assert read(store, push(store, "new", noise(200 * KIB, 1))) == noise(200 * KIB, 1)

    def test_many_processes_may_open_a_new_root_at_once(self, tmp_path: Path) -> None:
        """Exactly one makes the store; all of them work on it."""
        script = """
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from cas import Name, Record, Store
sys.stdin.read(1)
with Store.open(Path(sys.argv[1]), create=True) as store:
    store.change(lambda names: names.put(Name("thing", sys.argv[2]), Record(b"")))
"""
        command = [sys.executable, "-c", script, str(tmp_path / "root")]
        crowd = [
            subprocess.Popen([*command, str(n)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for n in range(4)
        ]
        for process in crowd:
            assert process.stdin is not None
            process.stdin.write("x")
            process.stdin.flush()
        assert [process.communicate()[1] for process in crowd] == [""] * 4
        with Store.open(tmp_path / "root") as store:
            assert [name.path for name, _ in store.scan("thing")] == ["0", "1", "2", "3"]

    def test_two_that_both_found_nothing_make_one_store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second one looks again once it has the lock, and takes the first one's store for what it is."""
        made: list[bytes] = []

        @contextmanager
        def after_somebody_else(path: Path, wait_s: float) -> Iterator[None]:
            if not made:
                made.append(b"")
                _, manifest = cas.root.find(tmp_path, create=True, disk=Disk())
                made[0] = manifest.id
            with lock_folder(path, wait_s):
                yield

        monkeypatch.setattr(cas.root, "lock_folder", after_somebody_else)
        _, manifest = cas.root.find(tmp_path, create=True, disk=Disk())
        assert made == [manifest.id]
        assert json.loads((tmp_path / "store.json").read_text())["id"] == manifest.id.hex()

    def test_a_clean_close_leaves_only_sealed_packs_and_no_lease(self, tmp_path: Path) -> None:
        """The next opener has nothing to settle: no open pack, no lock file, no write."""
        make(tmp_path)
        assert {path.name for path in (tmp_path / "locks").iterdir()} == {
            "journal",
            "turns",
            "packs",
            "epochs",
            "uploads",
        }
        assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "packs").rglob("*.pack")} == {"0o440"}
        before = (tmp_path / "index" / "data.mdb").stat().st_mtime_ns
        with opened(tmp_path) as store:
            states = store._parts.index.read(lambda view: {row.state.name for row in view.packs()})
            assert states == {"SEALED"}
        assert (tmp_path / "index" / "data.mdb").stat().st_mtime_ns == before

    def test_housekeeping_waits_for_nobody(self, tmp_path: Path) -> None:
        """A process stopped while it holds the folder's lock does not stop the others' ticks."""
        with opened(tmp_path) as store:
            with lock_folder(tmp_path, 0):
                store.tick()
            store.tick()

    @pytest.mark.parametrize("what", ["cas.commit.Cell", "cas.store.Pins", "cas.store.Hands"])
    def test_an_opening_that_fails_half_way_holds_nothing(
        self, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither the index, which this process could then not open again, nor a lease."""
        make(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(what, partial(raises, DiskFailed("planted")))
            with pytest.raises(DiskFailed, match="planted"):
                Store.open(tmp_path, SMALL)
        with opened(tmp_path) as store:
            assert read(store, store.scan("thing")[0][1].holds[0]) == noise(200 * KIB)
            assert leftovers(store) == []

    def test_closing_twice_is_harmless(self, tmp_path: Path) -> None:
        """And `with` after `close` too."""
        with opened(tmp_path) as store:
            store.close()
            store.close()
        assert {path.name for path in (tmp_path / "locks").iterdir()} == {"journal", "epochs", "packs", "uploads"}


def test_a_store_is_nobody_elses_business(tmp_path: Path) -> None:
    """Hashes of passwords, keys and private layers: nothing in it can be read by other users of the machine."""
    before = os.umask(0)
    try:
        with Store.open(tmp_path / "root", SMALL, create=True) as store:
            push(store, "blob", noise(MIB))
            store.backup(tmp_path / "copy")
    finally:
        os.umask(before)
    made = [path for folder in ("root", "copy") for path in (tmp_path / folder, *(tmp_path / folder).rglob("*"))]
    told = tmp_path / "root" / "store.json"  # its format and its id
    assert [path for path in made if path.stat().st_mode & 0o007] == [told]


def test_what_the_umask_keeps_from_the_group_it_keeps_in_a_store_and_in_a_backup(tmp_path: Path) -> None:
    """Also of what was sealed, and of an index that LMDB copied; only what takes rights away is done beside it."""
    before = os.umask(0o077)
    try:
        with Store.open(tmp_path / "root", SMALL, create=True) as store:
            push(store, "kept", noise(200 * KIB))
            store.backup(tmp_path / "copy")
    finally:
        os.umask(before)
    made = [*(tmp_path / "root").rglob("*"), *(tmp_path / "copy").rglob("*")]
    assert any(path.suffix == ".pack" and not path.stat().st_mode & 0o200 for path in made)
    assert [path for path in made if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("lock", ["gc", "epochs", "journal"])
def test_a_lock_that_is_a_link_to_nowhere_is_refused(tmp_path: Path, lock: str) -> None:
    """Neither waited for without end, nor made wherever it points to."""
    make(tmp_path)
    path = tmp_path / "locks" / lock
    path.unlink(missing_ok=True)
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DiskFailed, match=f"{path}.* symbolic links"), Store.open(tmp_path, SMALL) as store:
        store.collect()
    assert not (tmp_path / "nowhere").exists()


def test_a_manifest_that_the_system_does_not_read_is_no_wrong_one(tmp_path: Path) -> None:
    """A disk that fails is told from a file that has to come from a backup; a folder in its place is refused alike."""
    make(tmp_path)
    (tmp_path / "store.json").unlink()
    (tmp_path / "store.json").mkdir()
    for use in (lambda: Store.open(tmp_path, SMALL), lambda: rebuild_index(tmp_path, SMALL, force=True)):
        with pytest.raises(Unreadable, match=r"store\.json cannot be read"):
            use()
