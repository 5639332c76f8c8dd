"""Names that no longer matter go, and no other; whatever is pushed meanwhile."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from api import maintenance
from api.access import refresh, users
from api.access.users import User
from api.content import marks, removal, trash
from api.content.collect import Swept, Terms
from api.content.repository import Repository
from api.content.settings import KeepingSettings
from cas import Damaged, Depth, InUse, Name, Store
from tests.v1client import Layer, chain
from tests.wire.harness import NOW
from tests.wire.v1.talk import Guarded, Registry, guarding, image_json, new_id, running
from tests.wire.v2.content import Home, index
from tests.wire.v2.pushing import Client, Pushed, code, new_data, new_repository, sha256

LINKS = "blobs that no manifest of their repository names"
UNTAGGED = "manifests without a tag"
DAY_S = 86400.0


@pytest.fixture
def client(registry: Pushed) -> Iterator[Client]:
    with closing(registry.client()) as client:
        yield client


@pytest.fixture
def home(client: Client) -> Home:
    return Home(client)


def sweep(
    registry: Pushed | Registry,
    days: float = 0,
    *,
    grace_s: float | None = None,
    untagged: bool = False,
    progress: Callable[[], object] = bool,
) -> Swept:
    """Remove what nothing needs some days from now; a dry run before must say just that, and change nothing."""
    store = registry.store
    behind = registry.clock.now - (NOW + days * DAY_S)
    terms = maintenance.terms(
        KeepingSettings(), lambda: registry.clock.now - behind, grace_s=grace_s, untagged=untagged
    )
    before = store.stats()
    told = maintenance.sweep(store, terms, dry_run=True)
    assert store.stats() == before
    assert told.without <= {name for kind in kinds(store) for name, _ in store.scan(kind)}
    done = maintenance.sweep(store, terms, progress=progress)
    if progress is bool:
        assert (done.removed, done.left) == (told.removed, [])
        assert store.stats().names == before.names - done.removed.total()
        assert all(store.get(name) is None for name in told.without)
        assert store.scan(marks.MARK) == []
    return done


def kinds(_store: Store) -> tuple[str, ...]:
    return ("link", "manifest", "trash", "v1.image", "v1.upload")


class TestLinks:
    """Blobs of a repository count while a manifest of it names them, or they are young."""

    def test_a_blob_waits_for_its_manifest_and_not_for_ever(self, registry: Pushed, client: Client) -> None:
        """A day, as it is set; then its repository shows it no more."""
        name, data = new_repository(), new_data(10)
        digest = client.push(name, data)
        assert not sweep(registry, 0.9).removed
        assert client.blob(name, digest).status_code == 200
        assert sweep(registry, 1.1).removed == {LINKS: 1}
        assert client.blob(name, digest).status_code == 404

    def test_what_any_manifest_names_stays(self, registry: Pushed, client: Client) -> None:
        """Of either size, with a tag or without, of any age."""
        home = Home(client)
        home.push(home.image(annotations={"x": "y" * 100_000}))
        assert not sweep(registry, 100).removed
        assert home.client.blob(home.name, sha256(home.layers[0])).status_code == 200

    def test_what_only_another_repository_names_goes(self, registry: Pushed, client: Client) -> None:
        """A digest alone opens nothing, so it keeps nothing either."""
        one, other = Home(client), Home(client)
        one.push(one.numbered(1))
        assert sweep(registry, 2).removed == {LINKS: 3}
        assert one.client.blob(one.name, sha256(one.config)).status_code == 200
        assert one.client.blob(other.name, sha256(one.config)).status_code == 404

    def test_no_grace_takes_what_no_manifest_names_yet(self, registry: Pushed, client: Client) -> None:
        """As documented: a push under way begins anew."""
        home = Home(client)
        assert sweep(registry, grace_s=0).removed == {LINKS: 3}
        assert code(home.put(home.numbered(1))) == "MANIFEST_BLOB_UNKNOWN"

    @pytest.mark.parametrize("how", ["HEAD", "mount", "upload"])
    def test_a_push_that_was_told_a_blob_is_here_finds_it(self, registry: Pushed, client: Client, how: str) -> None:
        """Whichever way it was told, that counts as put there just now; a pull does not."""
        name, data = new_repository(), new_data(10)
        digest = client.push(name, data)
        registry.clock.now += 2 * DAY_S
        assert client.blob(name, digest).status_code == 200
        if how == "HEAD":
            assert client.blob(name, digest, "HEAD").status_code == 200
        elif how == "mount":
            path = f"/v2/{name}/blobs/uploads/?mount={digest}&from={name}"
            assert client.ask("POST", path).status_code == 201
        else:
            client.push(name, data)
        assert not sweep(registry, 2).removed
        assert sweep(registry, 3.1).removed == {LINKS: 1}

    def test_asking_writes_at_most_once_an_hour(self, registry: Pushed, client: Client) -> None:
        """Whoever asks a thousand times costs one write."""
        name, data = new_repository(), new_data(10)
        digest = client.push(name, data)
        link = Name("link", f"{name}@{digest}")
        seen = set()
        for _ in range(12):
            registry.clock.now += 600
            assert client.blob(name, digest, "HEAD").status_code == 200
            seen.add(registry.store.get(link))
        assert len(seen) == 3

    def test_the_trash_keeps_what_its_manifests_name(self, registry: Pushed, client: Client) -> None:
        """Until they can no longer come back."""
        home = Home(client)
        home.delete(home.push(home.numbered(1), "some").digest)
        assert not sweep(registry, 6).removed
        assert sweep(registry, 8).removed[LINKS] == 3

    def test_a_manifest_pushed_while_links_are_removed_keeps_its_own(self, registry: Pushed, client: Client) -> None:
        """A push between the look and the removal finds all its blobs: what it was answered is true afterwards."""
        home = Home(client)
        useless = client.push(home.name, new_data(9))
        answers: list[int] = []

        def push() -> None:
            marked = [name.path for name, _ in registry.store.scan(marks.MARK)]
            if marked == [home.name] and not answers:
                answers.append(home.put(home.numbered(1), "some").status_code)

        assert sweep(registry, grace_s=0, progress=push).removed == {LINKS: 1}
        assert answers == [201]
        assert client.blob(home.name, useless).status_code == 404
        assert home.get("some").status_code == 200
        for data in (home.config, *home.layers):
            assert client.blob(home.name, sha256(data)).status_code == 200

    def test_a_repository_that_never_rests_is_left_for_the_next_run(
        self, registry: Pushed, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And that is said; nothing of it is removed."""
        home = Home(client)
        real = marks.put

        def disturbed(*arguments: object) -> None:
            real(*arguments)  # type: ignore[arg-type]
            names, what, _ = arguments
            marks.disturb(names, str(what))  # type: ignore[arg-type]

        monkeypatch.setattr(marks, "put", disturbed)
        done = sweep(registry, 2, progress=lambda: None)
        assert done.removed == Counter()
        assert [each.partition(":")[0] for each in done.left] == [home.name]


class TestManifests:
    """Without a tag they stay, unless that is asked for."""

    def test_only_what_nothing_leads_to_goes(self, registry: Pushed, client: Client) -> None:
        """Kept are children of an index with a tag and what is about them; what is about one that goes, goes too."""
        home = Home(client)
        child, lonely = home.push(home.numbered(1)), home.push(home.numbered(2))
        home.push(index([child]), "some")
        about_child = home.push(home.image(subject=child.descriptor))
        about_lonely = home.push(home.image(subject=lonely.descriptor, annotations={"about": "lonely"}))
        about_that = home.push(home.image(subject=about_lonely.descriptor))
        assert not sweep(registry, 2).removed
        assert sweep(registry, 2, untagged=True).removed == {
            UNTAGGED: 3,
            "entries of removed manifests in lists of referrers": 2,
        }
        assert {home.get(each.digest).status_code for each in (child, about_child)} == {200}
        assert {home.get(each.digest).status_code for each in (lonely, about_lonely, about_that)} == {404}
        assert [each["digest"] for each in home.referrers(child.digest)] == [about_child.digest]
        assert home.referrers(lonely.digest) == []

    def test_the_blobs_of_what_goes_go_along(self, registry: Pushed, client: Client) -> None:
        """In the same run."""
        home = Home(client)
        home.push(home.numbered(1))
        assert sweep(registry, 2, untagged=True).removed == {UNTAGGED: 1, LINKS: 3}

    def test_a_young_one_waits_for_its_tag(self, registry: Pushed, client: Client) -> None:
        """Children are pushed before their index."""
        home = Home(client)
        home.push(home.numbered(1))
        assert not sweep(registry, 0.9, untagged=True).removed

    def test_what_the_trash_needs_stays(self, registry: Pushed, client: Client) -> None:
        """A tag's manifest, an index's children: else nothing whole could come back."""
        home = Home(client)
        child = home.push(home.numbered(1))
        parent = home.push(index([child]), "parent")
        other = home.push(home.numbered(2), "other")
        home.delete(parent.digest)
        home.delete("other")
        assert not sweep(registry, 3, untagged=True).removed
        assert {home.get(each.digest).status_code for each in (child, other)} == {200}
        assert sweep(registry, 8, untagged=True).removed[UNTAGGED] == 2


@pytest.fixture
def v1(registry: Pushed) -> Registry:
    return Registry(registry.store, registry.server, registry.clock)


@dataclass
class Step:
    """One request of a v1 push; a second passes with each."""

    v1: Registry
    image: Layer
    what: str
    body: bytes | None
    headers: dict[str, str]

    def __call__(self) -> int:
        """Make it; return the status."""
        self.v1.clock.now += 1
        return self.v1.ask("PUT", f"/v1/images/{self.image.id}/{self.what}", self.body, self.headers).status


def steps(v1: Registry, image: Layer, headers: dict[str, str] | None = None) -> list[Step]:
    """The requests that bring an image, in their order."""
    assert isinstance(image.layer, bytes)
    proof = {"X-Docker-Checksum-Payload": image.payload_checksum(), "Content-Length": "0"}
    who = headers or {}
    return [
        Step(v1, image, "json", image.json, who),
        Step(v1, image, "layer", image.layer, who),
        Step(v1, image, "checksum", None, who | proof),
    ]


class TestV1:
    """Images that stand in no repository, and those that never got whole."""

    def test_images_of_a_deleted_repository_go_with_the_trash(self, v1: Registry) -> None:
        """Not before; what another repository has as well stays with all its ancestors."""
        images = chain([b"one", b"two", b"three"], seed=new_id())
        v1.client().push("some/whole", images, ["latest"])
        v1.client().push("some/part", images[:2], ["latest"])
        removal.remove(v1.store, Repository("some", "whole"), NOW)
        assert not sweep(v1, 6).removed
        removed = sweep(v1, 8).removed
        assert removed["images that stand in no repository"] == 1
        pulled = v1.client().pull("some/part", "latest")
        assert {image.id for image in pulled} == {image.id for image in images[:2]}
        removal.remove(v1.store, Repository("some", "part"), NOW)
        assert sweep(v1, 8).removed["images that stand in no repository"] == 2
        assert v1.store.scan("v1.image") == []

    def test_an_upload_that_was_never_finished_goes_after_its_grace(self, v1: Registry) -> None:
        """And what it descends from stays until then."""
        parent, child = chain([b"one", b"two"], seed=new_id())
        v1.client().push("some/repo", [parent], ["latest"])
        removal.remove(v1.store, Repository("some", "repo"), NOW)
        v1.clock.now += 10 * DAY_S
        assert v1.ask("PUT", f"/v1/images/{child.id}/json", image_json(child.id, parent.id)).status == 200
        assert "images that stand in no repository" not in sweep(v1, 10).removed
        assert v1.store.get(Name("v1.image", parent.id)) is not None
        removed = sweep(v1, 11.1).removed
        assert removed["images whose upload was never finished"] == 1
        assert v1.store.get(Name("v1.image", parent.id)) is None

    def test_a_parent_named_while_it_is_removed_stays(self, v1: Registry) -> None:
        """The push was told that it is there."""
        parent, child = chain([b"one", b"two"], seed=new_id())
        v1.client().push("some/repo", [parent], ["latest"])
        removal.remove(v1.store, Repository("some", "repo"), NOW)
        statuses: list[int] = []

        def push() -> None:
            there = v1.store.scan(marks.MARK)
            if there and there[0][0].path == marks.V1 and not statuses:
                body = image_json(child.id, parent.id)
                statuses.append(v1.ask("PUT", f"/v1/images/{child.id}/json", body).status)

        v1.clock.now += 10 * DAY_S
        sweep(v1, 10, progress=push)
        assert statuses == [200]
        assert v1.store.get(Name("v1.image", parent.id)) is not None

    @pytest.mark.parametrize("after_looking", [False, True])
    @pytest.mark.parametrize("done", [0, 1, 2])
    @pytest.mark.parametrize("account", [False, True])
    def test_a_push_that_gets_on_beside_a_collection_keeps_its_bases(
        self, tmp_path: Path, *, account: bool, done: int, after_looking: bool
    ) -> None:
        """Without any grace: whichever step it takes, and whether the collection has looked by then or not."""
        with guarding(tmp_path / "guarded") if account else running(tmp_path / "open") as there:
            v1, headers = (there.registry, there.account("ann")) if isinstance(there, Guarded) else (there, {})
            base, mid, top = (steps(v1, image, headers) for image in chain([b"base", b"mid", b"top"], seed=new_id()))
            todo = iter([*base, *mid, *top])
            assert [next(todo)() for _ in range(6 + done)] == [200] * (6 + done)
            v1.clock.now += 1
            said: list[int] = []

            def get_on() -> None:
                has_looked = v1.store.get(Name(marks.MARK, marks.V1)) is not None
                if not said and has_looked >= after_looking:
                    said.append(next(todo)())

            sweep(v1, (v1.clock.now - NOW) / DAY_S, grace_s=0, progress=get_on)
            assert said == [200]
            assert [step() for step in todo] == [200] * (2 - done)
            shown = json.dumps(top[0].image.id).encode()
            assert v1.ask("PUT", "/v1/repositories/ann/app/tags/new", shown, headers).status == 200
            assert len(v1.ask("GET", f"/v1/images/{top[0].image.id}/ancestry", None, headers).value) == 3

    def test_a_base_that_is_not_whole_yet_stays_for_what_is_begun_on_it(self, v1: Registry) -> None:
        """With what it stands on itself; whoever pushes several images at once need not finish them in order."""
        images = chain([b"deep", b"base", b"top"], seed=new_id())
        deep, base, top = (steps(v1, image) for image in images)
        assert [step() for step in [*deep, base[0]]] == [200] * 4
        v1.clock.now += 1
        said: list[int] = []

        def begin() -> None:
            if not said:
                said.append(top[0]())

        sweep(v1, (v1.clock.now - NOW) / DAY_S, grace_s=0, progress=begin)
        assert [*said, *(step() for step in [*base[1:], *top[1:]])] == [200] * 5
        assert v1.ask("GET", f"/v1/images/{images[-1].id}/ancestry").value == [image.id for image in images[::-1]]

    def test_without_a_grace_nothing_stays_of_a_push_that_does_not_get_on(self, v1: Registry) -> None:
        """However lately it began, also where the clock was put back since."""
        for ahead in (0, 400 * DAY_S):
            v1.clock.now += ahead
            base, top = chain([b"base", b"top"], seed=new_id())
            assert [step() for step in [*steps(v1, base), *steps(v1, top)[:2]]] == [200] * 5
            v1.clock.now -= ahead
            assert sweep(v1, grace_s=0).removed == {
                "images that stand in no repository": 1,
                "images whose upload was never finished": 1,
            }

    def test_a_grace_begins_with_what_came_last(self, v1: Registry) -> None:
        """Not with the image's first byte, which may be long ago, nor with the second in which it came."""
        (image,) = chain([b"base"], seed=new_id())
        json_of, layer, checksum = steps(v1, image)
        v1.clock.now += 0.9
        for step in (json_of, layer, checksum):
            v1.clock.now += DAY_S / 2
            assert step() == 200
            last = v1.clock.now
            assert not sweep(v1, (last - NOW + 0.3) / DAY_S, grace_s=0.5).removed
        assert sweep(v1, (last - NOW + 0.7) / DAY_S, grace_s=0.5).removed == {"images that stand in no repository": 1}


def test_refresh_tokens_of_older_passwords_go(registry: Pushed) -> None:
    """They were refused already."""

    def made(stamp: str) -> User:
        return User("ann", "$argon2id$x", None, admin=False, created=0, changed=0, stamp=stamp)

    store = registry.store
    store.change(lambda names: users.add(names, made("new")))
    for number, stamp in enumerate(("old", "new")):
        store.change(lambda names, n=number, s=stamp: refresh.issue(names, "ann", s, bytes([n] * 32), NOW))  # type: ignore[misc]
    assert sweep(registry).removed == {"refresh tokens of older passwords": 1}


def test_a_manifest_that_cannot_be_read_keeps_everything(registry: Pushed, client: Client) -> None:
    """It may need any blob of its repository; others are not kept by it."""
    bad, good = Home(client), Home(client)
    digest = bad.push(bad.image(annotations={"x": "y" * 100_000})).digest
    name = Name("manifest", f"{bad.name}@{digest}")
    found = registry.store.get(name)
    assert found is not None
    (blob,) = found.holds
    real = registry.store.reader
    with pytest.MonkeyPatch.context() as patch:

        def reader(asked: object) -> object:
            if asked == blob:
                raise Damaged("a flipped bit")
            return real(asked)  # type: ignore[arg-type]

        patch.setattr(registry.store, "reader", reader)
        done = maintenance.sweep(registry.store, maintenance.terms(KeepingSettings(), lambda: NOW + 2 * DAY_S))
    assert done.removed == {LINKS: 3}
    assert [each.partition(":")[0] for each in done.left] == [bad.name]
    assert client.blob(good.name, sha256(good.config)).status_code == 404
    assert trash.deletions(registry.store) == []


def test_nobody_comes_in_between_the_names_and_their_bytes(
    registry: Pushed, client: Client, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first name to its last pack a collection is alone: whoever comes meanwhile is told so."""
    home.push(home.image())
    client.push(new_repository(), new_data(200_000))
    store, told = registry.store, Counter[str]()

    def now() -> float:
        return registry.clock.now + 2 * DAY_S

    def terms() -> Terms:
        return maintenance.terms(KeepingSettings(), now, grace_s=0)

    intrusions: list[Callable[[], object]] = [
        lambda: maintenance.run(store, terms()),
        lambda: store.repair(wait_s=0),
        lambda: store.backup(tmp_path / "copy"),
    ]

    def disturb(step: str) -> None:
        undisturbed = getattr(store, step)

        def work(**arguments: object) -> object:
            monkeypatch.setattr(store, step, undisturbed)
            for intrude in intrusions:
                try:
                    intrude()
                    told["did it"] += 1
                except InUse:
                    told["in use"] += 1
            return undisturbed(**arguments)

        monkeypatch.setattr(store, step, work)

    disturb("collect")
    disturb("compact")
    done = maintenance.run(store, terms())
    assert client.blob(home.name, sha256(home.layers[0])).status_code == 200
    assert list(store.check(Depth.DEEP)) == []
    assert told == {"in use": 6}
    assert (done.names.removed[LINKS], done.bytes.blobs) == (1, 1)
