"""An index that is not the one of the packs beside it is refused before it can deny what was acknowledged."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import cas.index
import cas.kinship
import cas.store
from cas import Digest, IndexUnfit, PacksMissing, Store, rebuild_index, restore
from cas.commit import JOURNAL_SEQ
from cas.layout import Layout
from cas.root import read_manifest
from cas.scan import pack_paths
from tests.support.ending import cut_off_backup
from tests.support.engine import KIB, SMALL, noise, opened, push, read
from tests.support.processes import start_python

# Has a store open, and makes its first packs when told.
WAITS = """
import sys
from pathlib import Path
from tests.support.engine import noise, opened, push
with opened(Path(sys.argv[1])) as store:
    print("ready")
    for _ in sys.stdin:
        push(store, "one", noise(200_000))
        print("pushed")
"""


def make(root: Path, *names: str) -> dict[str, Digest]:
    """Push a blob under each of some names."""
    with opened(root) as store:
        return {name: push(store, name, noise(200 * KIB, index)) for index, name in enumerate(names)}


def names_in(root: Path) -> set[str]:
    """Return the names that a store has."""
    with opened(root) as store:
        return {name.path for name, _ in store.scan("thing")}


def seen(root: Path) -> dict[str, bytes]:
    """Return the packs, byte for byte."""
    return {path.name: path.read_bytes() for path in (root / "packs").rglob("*.pack")}


def empty(root: Path) -> None:
    """What `>` in a shell leaves."""
    (root / "index" / "data.mdb").write_bytes(b"")


def new(root: Path) -> None:
    """What LMDB makes of it."""
    empty(root)
    with pytest.raises(IndexUnfit):
        Store.open(root, SMALL)


def older(root: Path) -> None:
    """The index of an earlier backup of that folder, file by file."""
    shutil.copy(root.with_name("earlier.mdb"), root / "index" / "data.mdb")


def foreign(root: Path) -> None:
    """The index of some other store."""
    other = root.with_name("other")
    make(other, "theirs")
    shutil.copy(other / "index" / "data.mdb", root / "index" / "data.mdb")


class TestRefusals:
    """Nothing is opened, nothing is changed, and the command that is named brings everything back."""

    @pytest.mark.parametrize(
        ("spoil", "why"),
        [
            (empty, "it is empty, and there are"),
            (new, "it is empty, and there are"),
            (older, "it is older than the packs: it ends with change 1, and they show change 2"),
            (foreign, "it is the index of another store"),
        ],
    )
    def test_an_index_that_is_not_theirs_is_refused_and_a_rebuild_brings_all_back(
        self, spoil: Callable[[Path], None], why: str, tmp_path: Path
    ) -> None:
        """Else the next change would say that what it does not know never happened."""
        root = tmp_path / "root"
        make(root, "one")
        shutil.copy(root / "index" / "data.mdb", root.with_name("earlier.mdb"))
        make(root, "two", "three")
        before = seen(root)
        spoil(root)
        with pytest.raises(IndexUnfit, match=rf"{why}.*; nothing was changed. `cas fsck --rebuild-index --force"):
            Store.open(root, SMALL)
        assert seen(root) == before
        assert rebuild_index(root, SMALL, force=True).damaged == []
        assert names_in(root) == {"one", "two", "three"}

    def test_an_older_index_is_seen_though_the_journal_went_on_in_the_same_pack(self, tmp_path: Path) -> None:
        """The process that wrote both was killed: no pack is new, one is longer than the index says."""
        root = tmp_path / "root"
        store = Store.open(root, SMALL, create=True)
        push(store, "one", noise(200 * KIB))
        shutil.copytree(root, tmp_path / "killed")
        push(store, "two", noise(200 * KIB, 1))
        push(store, "three", noise(200 * KIB, 2))
        shutil.copytree(root / "packs", tmp_path / "killed" / "packs", dirs_exist_ok=True)
        store.close()
        with pytest.raises(IndexUnfit, match="it is older than the packs"):
            Store.open(tmp_path / "killed", SMALL)

    def test_an_older_index_is_seen_though_only_chunks_were_moved_since(self, tmp_path: Path) -> None:
        """No name changed: packs that it names are gone, and others are there."""
        root = tmp_path / "root"
        with opened(root) as store:
            push(store, "one", noise(400 * KIB))
            push(store, "one", noise(200 * KIB, 1))
        shutil.copy(root / "index" / "data.mdb", root.with_name("earlier.mdb"))
        before = set(seen(root))
        with opened(root) as store:
            store.collect()
            store.compact(everything=True)
        assert before - set(seen(root))
        older(root)
        with pytest.raises(IndexUnfit, match=r"of the packs that it names are gone|it is older than the packs"):
            Store.open(root, SMALL)

    def test_a_store_without_a_single_pack_says_that_their_disk_is_not_mounted(self, tmp_path: Path) -> None:
        """It would go on below the mount point, and lack everything."""
        make(tmp_path, "one")
        (tmp_path / "packs").rename(tmp_path.with_name("elsewhere"))
        with pytest.raises(
            PacksMissing, match=r"none of the \d packs of .* is there; nothing was changed. If .* mount it"
        ):
            Store.open(tmp_path, SMALL)
        tmp_path.with_name("elsewhere").rename(tmp_path / "packs")
        assert names_in(tmp_path) == {"one"}

    def test_a_backup_that_was_copied_over_a_newer_store_is_refused(self, tmp_path: Path) -> None:
        """Its `backup.json` came along, and is no leave for an older index; whoever only looks is refused as well."""
        root, copy = tmp_path / "root", tmp_path / "copy"
        make(root, "one")
        with opened(root) as store:
            store.backup(copy)
        make(root, "two", "three")
        shutil.copytree(copy, root, dirs_exist_ok=True)
        before = seen(root)
        for reading in (True, False):
            with pytest.raises(
                IndexUnfit, match=r"a backup was copied over it\).*--rebuild-index --force.*cas restore.* empty folder"
            ):
                Store.open(root, SMALL, reading=reading)
        with pytest.raises(IndexUnfit):
            restore(root, tmp_path / "restored", SMALL)
        assert seen(root) == before
        assert rebuild_index(root, SMALL, force=True).damaged == []
        assert names_in(root) == {"one", "two", "three"}
        with opened(root) as store:
            store.backup(copy)
        assert names_in(copy) == {"one", "two", "three"}

    def test_neither_is_it_a_leave_where_the_backup_was_cut_off(self, tmp_path: Path) -> None:
        """Its packs may be ahead of its index, by what the copy that was cut off was to bring and no more."""
        root, copy = tmp_path / "root", tmp_path / "copy"
        make(root, "one")
        with opened(root) as store:
            store.backup(copy)
        make(root, "two")
        with opened(root) as store:
            cut_off_backup(store, copy)
        make(root, "three", "four", "five")
        shutil.copytree(copy, root, dirs_exist_ok=True)
        with pytest.raises(IndexUnfit, match="a backup was copied over it"):
            Store.open(root, SMALL)
        assert rebuild_index(root, SMALL, force=True).damaged == []
        assert names_in(root) == {"one", "two", "three", "four", "five"}

    def test_a_folder_with_an_older_index_is_not_restored_from(self, tmp_path: Path) -> None:
        """A copy of it would silently lack what it does not know."""
        root = tmp_path / "root"
        make(root, "one")
        shutil.copy(root / "index" / "data.mdb", root.with_name("earlier.mdb"))
        make(root, "two", "three")
        older(root)
        with pytest.raises(IndexUnfit):
            restore(root, tmp_path / "restored", SMALL)


class TestAcceptances:
    """What looks like it and is harmless opens as ever."""

    def test_a_store_that_lost_one_of_its_packs_serves_the_rest(self, tmp_path: Path) -> None:
        """It is damaged, not a stranger."""
        with opened(tmp_path) as store:
            kept = push(store, "one", noise(200 * KIB))
        with opened(tmp_path) as store:
            before = {row.pack for row in store._parts.index.read(lambda view: view.packs())}
            push(store, "two", noise(200 * KIB, 1))
            rows = store._parts.index.read(lambda view: view.packs())
            lost = next(row.pack for row in rows if row.pack not in before and row.role.name == "DATA")
        Store.open(tmp_path, SMALL).close()
        (path,) = (tmp_path / "packs").rglob(f"{lost:016x}.pack")
        path.unlink()
        with opened(tmp_path) as store:
            assert read(store, kept) == noise(200 * KIB)

    def test_the_first_packs_that_somebody_makes_meanwhile_are_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that is started anew while workers of the one before still end, say."""
        listed = pack_paths
        with start_python(WAITS, tmp_path) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            stdin, stdout = other.stdin, other.stdout
            assert stdout.readline() == "ready\n"

            def listed_too_soon(layout: Layout) -> list[tuple[int, Path]]:
                found = list(listed(layout))
                stdin.write("go\n")
                stdin.flush()
                assert stdout.readline() == "pushed\n"
                return found

            monkeypatch.setattr(cas.kinship, "pack_paths", listed_too_soon)
            assert names_in(tmp_path) == {"one"}
            stdin.close()

    def test_a_pack_that_the_index_has_forgotten_is_no_reason(self, tmp_path: Path) -> None:
        """Its row went, and the process was killed before its file did."""
        make(tmp_path, "one")
        with opened(tmp_path) as store:
            packs = {path: path.read_bytes() for path in (tmp_path / "packs").rglob("*.pack")}
            push(store, "one", noise(200 * KIB, 1))
            store.collect()
            store.compact(everything=True)
        gone = {path: data for path, data in packs.items() if not path.exists()}
        assert gone
        for path, data in gone.items():
            path.write_bytes(data)
        assert names_in(tmp_path) == {"one"}

    @pytest.mark.parametrize("lacks", [("store", "store_rest"), ("store_rest",)])
    def test_an_index_from_before_indexes_noted_whose_they_are_is_taken_and_noted(
        self, lacks: tuple[str, ...], tmp_path: Path
    ) -> None:
        """Or noted half of it; so that another one in its place is noticed from then on."""
        make(tmp_path, "one")
        with opened(tmp_path) as store:
            for name in lacks:
                store._parts.index.write(partial(cas.index.Edit.set_number, name=name, value=0))
        assert names_in(tmp_path) == {"one"}
        with opened(tmp_path) as store:
            own = read_manifest(Layout(tmp_path)).id
            assert store._parts.index.read(cas.kinship.noted) == own

    def test_a_backup_that_was_copied_to_where_a_store_was_is_that_store(self, tmp_path: Path) -> None:
        """It goes on, and into the same backup, which takes it for what it is as long as it goes no way of its own."""
        root, copy = tmp_path / "root", tmp_path / "copy"
        make(root, "one")
        with opened(root) as store:
            store.backup(copy)
        shutil.rmtree(root)
        shutil.copytree(copy, root)
        make(root, "two", "three")
        with opened(root) as store:
            assert not store.is_backup()
            store.backup(copy)
        assert names_in(root) == names_in(copy) == {"one", "two", "three"}

    def test_a_backup_that_was_cut_off_opens_as_the_earlier_one_and_stays_so(self, tmp_path: Path) -> None:
        """Newer packs came before the newer index; once the copy goes its own way, what they say never happened."""
        root, copy = tmp_path / "root", tmp_path / "copy"
        make(root, "one")
        with opened(root) as store:
            store.backup(copy)
        make(root, "two", "three")

        with opened(root) as store:
            cut_off_backup(store, copy)
        assert names_in(copy) == {"one"}
        with opened(copy) as store:
            push(store, "four", noise(200 * KIB, 4))
            assert store._parts.index.read(lambda view: view.number(JOURNAL_SEQ)) > 3
        shutil.rmtree(copy / "index")
        rebuild_index(copy, SMALL)
        assert names_in(copy) == {"one", "four"}


def test_what_a_refused_opener_leaves_does_no_harm(tmp_path: Path) -> None:
    """Refused again and again, then mended by the right index."""
    make(tmp_path, "one", "two")
    right = (tmp_path / "index" / "data.mdb").read_bytes()
    empty(tmp_path)
    for _ in range(2):
        with pytest.raises(IndexUnfit):
            Store.open(tmp_path, SMALL)
    (tmp_path / "index" / "data.mdb").write_bytes(right)
    with opened(tmp_path) as store:
        assert {name.path for name, _ in store.scan("thing")} == {"one", "two"}


def test_a_rebuild_says_so_where_a_store_was_used_with_an_older_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions did that took any index: what it did not know is stepped over, and that is no clean end."""
    make(tmp_path, "one", "two", "three")
    empty(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(cas.store, "hold_together", lambda *_: 0)
        make(tmp_path, "four")
    (said,) = rebuild_index(tmp_path, SMALL, force=True).damaged
    assert "records 1 to 2 were committed, but later ones step over them" in said
    assert names_in(tmp_path) == {"four"}


def test_who_ends_while_a_newcomer_looks_is_taken_for_no_younger_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went on committing after the index was asked for its last change, and then nobody held its lease any more."""
    make(tmp_path, "kept")
    look = cas.kinship._demand_packs
    with start_python(WAITS, tmp_path) as older:
        assert older.stdin is not None
        assert older.stdout is not None
        assert older.stdout.readline() == "ready\n"
        older.stdin.write("\n")
        older.stdin.flush()
        assert older.stdout.readline() == "pushed\n"

        def end(*arguments: object) -> None:
            if older.poll() is None:
                older.communicate("\n" * 3)
            look(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(cas.kinship, "_demand_packs", end)
        assert names_in(tmp_path) == {"kept", "one"}
    assert older.returncode == 0
