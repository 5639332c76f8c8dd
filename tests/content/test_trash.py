"""What was deleted is gone at once, and can be brought back for a while as it was."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from api import maintenance
from api.content import marks, removal, repositories, trash, undelete
from api.content.collect import Terms
from api.content.repositories import GONE, Access
from api.content.repository import Repository
from api.content.settings import KeepingSettings
from api.content.undelete import NothingDeleted, Restored, StandsInTheWay, Target
from api.content.values import content, record
from api.v2 import push
from cas import Digest, Name, Names, NoSpace, Record, Store
from cas.disk import Disk
from tests.wire.harness import NOW
from tests.wire.v2.content import Home, index
from tests.wire.v2.pushing import Pushed, pushing, sha256

KEEPING = KeepingSettings()


@pytest.fixture
def home(registry: Pushed) -> Iterator[Home]:
    with closing(registry.client()) as client:
        yield Home(client)


def back(registry: Pushed, what: str) -> Restored:
    return undelete.undelete(registry.store, Target.of(what))


def names_of(store: Store) -> dict[Name, Record]:
    """Every name that is in use."""
    kinds = ["tag", "manifest", "link", "referrer", "repo", "v1.member", "v1.in", "v1.upload", "v1.image"]
    kinds += ["catalogue.public", "catalogue.private", GONE]
    return dict(row for kind in kinds for row in store.scan(kind))


def trashed(store: Store) -> int:
    return len(store.scan(trash.TRASH)) + len(store.scan(trash.OF))


def sweep(registry: Pushed, days: float = 0, *, grace_s: float | None = None) -> dict[str, int]:
    """Remove what nothing needs, some days after everything was pushed."""
    terms = maintenance.terms(KEEPING, lambda: NOW + days * 86400, grace_s=grace_s)
    swept = maintenance.sweep(registry.store, terms)
    assert swept.left == []
    return dict(swept.removed)


class TestBack:
    """The same names with the same content, and nothing else."""

    def test_a_tag_comes_back_where_it_pointed(self, registry: Pushed, home: Home) -> None:
        """Of several deletions of one tag, the last."""
        for number in (1, 2):
            registry.clock.now += 0.5
            home.push(home.numbered(number), "some")
            assert home.delete("some") == 202
        assert home.tags() == []
        back(registry, f"{home.name}:some")
        assert home.get("some").content == home.numbered(2).body

    def test_a_manifest_comes_back_with_its_tags_and_as_a_referrer(self, registry: Pushed, home: Home) -> None:
        """One change takes them, one brings them."""
        subject = home.push(home.numbered(1), "subject")
        about = home.push(home.image(subject=subject.descriptor), "about")
        assert home.put(about, "also").status_code == 201
        before, pushed = names_of(registry.store), registry.store.stats().logical_bytes
        assert home.delete(about.digest) == 202
        assert (home.tags(), home.referrers(subject.digest)) == (["subject"], [])
        assert registry.store.stats().logical_bytes < pushed
        assert back(registry, f"{home.name}@{about.digest}").left == ()
        assert names_of(registry.store) == before
        assert registry.store.stats().logical_bytes == pushed
        assert trashed(registry.store) == 0

    def test_a_repository_comes_back_with_all_it_had(self, registry: Pushed, home: Home) -> None:
        """Who may see it, and what is shared with others that went on meanwhile."""
        other = Home(home.client)
        other.push(other.numbered(1))
        image = home.push(home.image(annotations={"x": "y" * 100_000}), "large")
        home.push(index([image]), "index")
        repository = Repository.of(home.name)
        registry.store.change(lambda names: repositories.set_access(names, repository, Access.PRIVATE))
        before, pushed = names_of(registry.store), registry.store.stats().logical_bytes
        assert removal.remove(registry.store, repository, NOW)
        assert home.get("large").status_code == 404
        assert other.client.blob(other.name, sha256(other.config)).status_code == 200
        sweep(registry, 6)
        back(registry, home.name)
        assert names_of(registry.store) == before
        assert registry.store.stats().logical_bytes == pushed
        assert home.get("large").content == image.body
        assert home.client.blob(home.name, sha256(home.layers[0])).content == home.layers[0]
        assert trashed(registry.store) == 0

    @pytest.mark.parametrize("changes", [1, 2, 3])
    def test_what_was_cut_off_on_its_way_back_is_finished_by_whoever_comes_next(
        self, registry: Pushed, home: Home, changes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A push to the name waits for it, and finds it."""
        monkeypatch.setattr(removal, "STEP", 2)
        home.push(home.numbered(1), "one")
        before = names_of(registry.store)
        removal.remove(registry.store, Repository.of(home.name), NOW)
        with monkeypatch.context() as patch:
            patch.setattr(registry.store, "change", failing_after(registry.store, changes))
            with pytest.raises(NoSpace):
                back(registry, home.name)
        removal.finish_all(registry.store)
        assert names_of(registry.store) == before
        assert trashed(registry.store) == 0

    def test_a_name_can_be_pushed_again_at_once(self, registry: Pushed, home: Home) -> None:
        """Whatever is kept of the one before."""
        image = home.push(home.numbered(1), "some")
        for what in ("some", image.digest):
            assert home.delete(what) == 202
            assert home.put(image, "some").status_code == 201
        removal.remove(registry.store, Repository.of(home.name), NOW)
        assert Home(home.client, home.name).put(image, "some").status_code == 201


def test_the_last_deletion_is_undone_also_where_the_clock_was_put_back(registry: Pushed, home: Home) -> None:
    """Which came last is known without a clock: what was set meanwhile is not lost to what was before."""
    repository, number = Repository.of(home.name), itertools.count()
    for what, delete in (
        (f"{repository}:some", lambda at: push.delete(registry.store, repository, "some", at)),
        (str(repository), lambda at: removal.remove(registry.store, repository, at)),
    ):
        home.push(index([], annotations={"number": str(next(number))}), "some")
        delete(NOW + 400 * 86400)
        newer = home.push(index([], annotations={"number": str(next(number))}), "some")
        delete(NOW + 1)
        back(registry, what)
        assert home.get("some").content == newer.body


@pytest.mark.parametrize("by_tag", [True, False])
def test_a_repository_is_known_for_the_one_it_was_whatever_the_clock_says(
    registry: Pushed, home: Home, *, by_tag: bool
) -> None:
    """What was deleted in it comes back to it, also from a time before it was made, and to none that was made since."""
    repository, image = Repository.of(home.name), home.push(home.numbered(1), "some")
    what = f"{repository}:some" if by_tag else f"{repository}@{image.digest}"

    def delete(at: float) -> None:
        push.delete(registry.store, repository, "some" if by_tag else Digest.parse(image.digest), at)

    for at in (NOW - 400 * 86400, NOW, NOW + 400 * 86400):  # before, when and after it was made
        delete(at)
        removal.remove(registry.store, repository, at)
        back(registry, home.name)
        registry.store.change(lambda names: repositories.set_access(names, repository, Access.PRIVATE))
        back(registry, what)
        assert home.get("some").content == image.body
    delete(NOW + 400 * 86400)
    removal.remove(registry.store, repository, NOW)
    Home(home.client, home.name).push(home.numbered(1))
    with pytest.raises(StandsInTheWay, match="was made anew since"):
        back(registry, what)


@pytest.mark.parametrize("by_tag", [True, False])
def test_a_deletion_in_a_repository_that_is_on_its_way_waits_for_it(
    registry: Pushed, home: Home, monkeypatch: pytest.MonkeyPatch, *, by_tag: bool
) -> None:
    """Cut off on its way out it is gone, with all that was in it; cut off on its way back it is there again."""
    monkeypatch.setattr(removal, "STEP", 2)
    repository, image = Repository.of(home.name), home.push(home.numbered(1), "some")
    with monkeypatch.context() as patch:
        patch.setattr(registry.store, "change", failing_after(registry.store, 1))
        with pytest.raises(NoSpace):
            removal.remove(registry.store, repository, NOW)
    assert home.delete("some" if by_tag else image.digest) == 404
    removal.finish(registry.store, repository)
    with monkeypatch.context() as patch:
        patch.setattr(registry.store, "change", failing_after(registry.store, 4))
        with pytest.raises(NoSpace):
            back(registry, home.name)
    assert registry.store.get(Name(GONE, home.name)) is not None
    assert home.delete("some" if by_tag else image.digest) == 202
    back(registry, f"{repository}:some" if by_tag else f"{repository}@{image.digest}")
    assert home.get("some").content == image.body


@pytest.mark.parametrize(("later_s", "comes_back"), [(0, True), (1, False)])
def test_what_an_earlier_version_deleted_comes_back_unless_its_repository_is_newer(
    registry: Pushed, home: Home, later_s: int, *, comes_back: bool
) -> None:
    """It noted no stamp, so the clock has to do; a repository that has one is newer in any case."""
    home.push(home.numbered(1), "some")
    home.delete("some")
    ((deletion, found),) = registry.store.scan(trash.OF)
    registry.store.change(lambda names: names.put(deletion, without_stamp(found)))
    with pytest.raises(StandsInTheWay, match="was made anew since"):
        back(registry, f"{home.name}:some")
    name = Name(repositories.REPO, home.name)
    (row,) = [found for each, found in registry.store.scan(name.kind) if each == name]
    registry.store.change(lambda names: names.put(name, without_stamp(row, created=int(NOW) + later_s)))
    with nullcontext() if comes_back else pytest.raises(StandsInTheWay, match="was made anew since"):
        back(registry, f"{home.name}:some")


def without_stamp(found: Record, **more: int) -> Record:
    """Write a record as an earlier version did."""
    return record({key: value for key, value in (content(found) | more).items() if key != "stamp"})


class TestTagsTakenAlong:
    """Most clients delete an image by its digest, and people ask for the tag that went with it."""

    def test_a_tag_comes_back_with_the_manifest_that_took_it_along(self, registry: Pushed, home: Home) -> None:
        """And so do the others that went with it; afterwards there is nothing left to undo."""
        image = home.push(home.numbered(1), "some")
        assert home.put(image, "other").status_code == 201
        before = names_of(registry.store)
        assert home.delete(image.digest) == 202
        restored = back(registry, f"{home.name}:some")
        assert names_of(registry.store) == before
        assert sorted(name.path for name in restored.back) == [
            f"{home.name}:other",
            f"{home.name}:some",
            f"{home.name}@{image.digest}",
        ]
        assert trashed(registry.store) == 0

    def test_of_several_deletions_the_last_one_that_took_the_tag_is_undone(self, registry: Pushed, home: Home) -> None:
        """Whichever way it was deleted, and whatever the clock did meanwhile."""
        days = [400, 1, 300, 0, 200]
        for number, day in enumerate(days):
            home.push(index([], annotations={"number": str(number)}), "some")
            registry.clock.now = NOW + day * 86400
            assert home.delete("some" if number % 2 else home.get("some").headers["docker-content-digest"]) == 202
        for number in reversed(range(len(days))):
            back(registry, f"{home.name}:some")
            assert home.get("some").content == index([], annotations={"number": str(number)}).body
            push.delete(registry.store, Repository.of(home.name), "some", NOW)
            newest = trash.newest(registry.store, f"{home.name}:some")  # type: ignore[arg-type]
            assert newest is not None
            registry.store.change(lambda names, name=newest.name: names.delete(name))  # type: ignore[misc]

    def test_what_was_deleted_by_an_earlier_version_is_found_too(self, registry: Pushed, home: Home) -> None:
        """It noted no last deletion; what follows it sorts behind it all the same."""
        registry.clock.now = NOW + 400 * 86400
        image = home.push(home.numbered(1), "some")
        home.delete(image.digest)
        registry.store.change(lambda names: names.delete(Name("trash.last", "ids")))
        registry.clock.now = NOW
        newer = home.push(home.numbered(2), "some")
        home.delete("some")
        back(registry, f"{home.name}:some")
        assert home.get("some").content == newer.body

    def test_what_stands_there_now_stays(self, registry: Pushed, home: Home) -> None:
        """The tag itself is in the way; a manifest that was pushed again, or another tag set anew, is only told."""
        image = home.push(home.numbered(1), "some")
        home.put(image, "other")
        home.delete(image.digest)
        home.push(home.numbered(2), "some")
        with pytest.raises(StandsInTheWay, match=":some again; delete that first"):
            back(registry, f"{home.name}:some")
        assert back(registry, f"{home.name}:other").left == (Name("tag", f"{home.name}:some"),)
        assert home.get("other").content == image.body
        home.delete(image.digest)
        home.put(image)
        assert back(registry, f"{home.name}:other").left == (Name("manifest", f"{home.name}@{image.digest}"),)
        assert home.get("other").content == image.body

    def test_a_tag_that_was_gone_before_is_not_among_them(self, registry: Pushed, home: Home) -> None:
        """It pointed elsewhere, or had a deletion of its own."""
        image = home.push(home.numbered(1), "some")
        home.push(home.numbered(2), "another")
        home.delete("some")
        home.delete(image.digest)
        (deletion,) = trash.deletions(registry.store, f"{home.name}@")
        assert registry.store.read(lambda reads: trash.tags_with(reads, deletion)) == []
        with pytest.raises(NothingDeleted):
            back(registry, f"{home.name}:another")


def failing_after(store: Store, changes: int) -> Callable[..., object]:
    """Make the change after so many fail for a full disk."""
    real, left = store.change, iter(range(changes))

    def change(edit: Callable[[Names], object], *, frees: bool = False) -> object:
        if next(left, None) is None:
            raise NoSpace("the disk is full")
        return real(edit, frees=frees)

    return change


class TestRefusals:
    """Nothing is overwritten, nothing half comes back; the message says what to do."""

    def test_what_was_never_deleted_cannot_come_back(self, registry: Pushed, home: Home) -> None:
        """Nor what only has its name in common."""
        home.push(home.numbered(1), "some")
        home.delete("some")
        for what in (home.name, f"{home.name}:som", f"{home.name}:some#", f"{home.name}@{home.numbered(1).digest}"):
            with pytest.raises(NothingDeleted, match="cas undelete --list"):
                back(registry, what)

    def test_what_stands_there_now_is_not_touched(self, registry: Pushed, home: Home) -> None:
        """A tag, a manifest, a repository that was pushed again."""
        image = home.push(home.numbered(1), "some")
        home.delete("some")
        home.push(home.numbered(2), "some")
        home.delete(image.digest)
        home.push(image)
        removal.remove(registry.store, Repository("some", "repo"), NOW)
        before = registry.store.stats()
        for what in ("some", image.digest):
            with pytest.raises(StandsInTheWay, match="again; delete that first"):
                back(registry, f"{home.name}{'@' if ':' in what else ':'}{what}")
        assert registry.store.stats().names == before.names
        removal.remove(registry.store, Repository.of(home.name), NOW)
        Home(home.client, home.name)
        with pytest.raises(StandsInTheWay, match="cas repo rm"):
            back(registry, home.name)

    def test_what_it_belongs_to_must_be_there(self, registry: Pushed, home: Home) -> None:
        """A tag needs its manifest, and both their repository; each is named with the command that brings it."""
        image = home.push(home.numbered(1), "some")
        home.delete("some")
        home.delete(image.digest)
        with pytest.raises(StandsInTheWay, match=f"cas undelete {home.name}@{image.digest}"):
            back(registry, f"{home.name}:some")
        removal.remove(registry.store, Repository.of(home.name), NOW)
        with pytest.raises(StandsInTheWay, match=f"cas undelete {home.name}"):
            back(registry, f"{home.name}@{image.digest}")
        for what in (home.name, f"{home.name}@{image.digest}", f"{home.name}:some"):
            back(registry, what)
        assert home.get("some").content == image.body

    def test_a_tag_that_was_set_anew_stays_when_its_manifest_comes_back(self, registry: Pushed, home: Home) -> None:
        """And that is told."""
        image = home.push(home.numbered(1), "some")
        home.delete(image.digest)
        home.push(home.numbered(2), "some")
        left = back(registry, f"{home.name}@{image.digest}").left
        assert left == (Name("tag", f"{home.name}:some"),)
        assert home.get("some").content == home.numbered(2).body
        assert home.get(image.digest).status_code == 200


def test_a_full_disk_takes_deletions_and_collections_and_no_pushes(tmp_path: Path) -> None:
    """The last part of it is kept for what makes room."""

    class Full(Disk):
        full = False

        def free_bytes(self, path: Path) -> tuple[int, int]:
            return (0, 1 << 30) if self.full else super().free_bytes(path)

    disk = Full()
    with pushing(tmp_path / "root", disk=disk) as registry, closing(registry.client()) as client:
        one, other = Home(client), Home(client)
        image = one.push(one.numbered(1), "some")
        disk.full = True
        assert one.put(one.numbered(2)).status_code == 503
        assert (one.delete("some"), one.delete(image.digest)) == (202, 202)
        assert removal.remove(registry.store, Repository.of(other.name), NOW)
        sweep(registry, grace_s=0)
        maintenance.note_run(registry.store, NOW)
        assert trashed(registry.store) == 0


def test_a_removal_that_stops_half_way_says_that_it_began_and_is_finished_by_the_next_call(tmp_path: Path) -> None:
    """Whichever write finds no room: either nothing happened, or it is told that the rest follows, and by whom."""

    class Full(Disk):
        left = 1 << 30  # writes that have room

        def write(self, fd: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
            self.left -= 1
            if self.left < 0:
                raise NoSpace("the disk is full")
            return super().write(fd, buffers, offset)

    disk, told = Full(), list[str]()
    with pushing(tmp_path / "root", disk=disk) as registry, closing(registry.client()) as client:
        for left in itertools.count():
            home = Home(client)
            for number in range(2):
                home.push(home.numbered(number), "some")
            one, disk.left = Repository.of(home.name), left
            try:
                assert removal.remove(registry.store, one, NOW)
                break
            except NoSpace as error:
                told.append(str(error).replace(home.name, "it"))
                is_gone = repositories.find(registry.store, one) is None
                assert is_gone == ("is gone, and what it consisted of follows" in told[-1])
            finally:
                disk.left = 1 << 30
            assert removal.remove(registry.store, one, NOW), "nobody is told that there is no such repository"
            assert registry.store.scan(GONE) == []
            assert not removal.remove(registry.store, one, NOW)
    assert "it is gone, and what it consisted of follows with the next `cas gc`" in told[-1]


class TestWindow:
    """Kept for as long as was said, and then no longer."""

    def test_it_is_kept_until_its_days_are_over(self, registry: Pushed, home: Home) -> None:
        """With every blob that it needs; afterwards nothing of it is left."""
        image = home.push(home.numbered(1), "some")
        home.delete(image.digest)
        assert sweep(registry, 6.9) == {}
        back(registry, f"{home.name}@{image.digest}")
        assert home.client.blob(home.name, sha256(home.layers[0])).status_code == 200
        home.delete(image.digest)
        removed = sweep(registry, 7.1)
        assert removed["deletions that can no longer be undone"] == 1
        assert removed["what those deletions had kept: tags, manifests, links to blobs"] > 0
        assert trashed(registry.store) == 0
        with pytest.raises(NothingDeleted):
            back(registry, f"{home.name}@{image.digest}")

    def test_no_grace_ends_every_deletion_and_frees_all_it_held(self, registry: Pushed, home: Home) -> None:
        """A repository's, a manifest's, a tag's; also one made in this very second."""
        image = home.push(home.numbered(1), "some")
        home.delete("some")
        home.delete(image.digest)
        removal.remove(registry.store, Repository.of(home.name), NOW)
        sweep(registry, grace_s=0)
        assert trashed(registry.store) == 0
        assert names_of(registry.store) == {}

    def test_what_is_deleted_while_a_collection_looks_can_be_brought_back(self, registry: Pushed, home: Home) -> None:
        """It began before that deletion, and does not take its rows for somebody's who is gone."""
        home.push(home.numbered(1), "old")
        home.push(home.numbered(2), "new")
        assert home.delete("old") == 202
        registry.clock.now += 8 * 86400
        found = trash.RULE.find(registry.store, marks.TRASH, maintenance.terms(KEEPING, registry.clock))
        first = next(found)
        assert home.delete("new") == 202
        assert "old" in first.name.path
        assert [trash.original(each.name).path for each in found] == [f"{home.name}:old"]
        back(registry, f"{home.name}:new")
        assert home.get("new").content == home.numbered(2).body

    def test_a_deletion_whose_rows_are_gone_is_not_said_to_be_undone(self, registry: Pushed, home: Home) -> None:
        """An earlier version may have collected them too early."""
        home.push(home.numbered(1), "some")
        assert home.delete("some") == 202
        rows = [name for name, _ in registry.store.scan(trash.TRASH)]
        registry.store.change(lambda names: [names.delete(row) for row in rows])
        with pytest.raises(NothingDeleted):
            back(registry, f"{home.name}:some")
        assert home.get("some").status_code == 404

    def test_rows_whose_deletion_is_gone_are_garbage(self, registry: Pushed, home: Home) -> None:
        """A collector died in between; rows on their way to the trash or back are none."""
        home.push(home.numbered(1), "some")
        repository = Repository.of(home.name)
        removal.remove(registry.store, repository, NOW)
        (deletion,) = trash.deletions(registry.store)
        registry.store.change(lambda names: removal.restore(names, repository, deletion))
        swept = maintenance.sweep(registry.store, Terms(0, 0), dry_run=True)
        assert not swept.removed
        registry.store.change(lambda names: names.delete(Name(GONE, home.name)))
        sweep(registry)
        assert trashed(registry.store) == 0
