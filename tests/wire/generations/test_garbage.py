"""What was made of a tag for the other generation lives exactly while something needs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.bridge.layers import LAYER
from api.content import usage
from api.content.repository import Repository
from api.content.undelete import Target, undelete
from api.content.usage import UNTAGGED
from api.content.whereabouts import Whereabouts
from cas import Digest, Name, Store, rebuild_index
from tests.content.test_collect import DAY_S, sweep
from tests.wire.generations.both import EMPTY, Both, Sample, both, new_tar, packed, tar
from tests.wire.generations.test_to_v1 import ZSTD, zstd
from tests.wire.v1.talk import image_json, new_id, payload
from tests.wire.v2.content import index
from tests.wire.v2.pushing import new_data, sha256

HOME = "some/thing"
MADE_MANIFESTS = "manifests made of v1 images that no tag shows"
MADE_IMAGES = "entries of images made of manifests that no tag shows"
AFTER = 9  # days: past the grace and past what can be undone


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Both]:
    with both(tmp_path / "root") as registry:
        yield registry


def collect(registry: Both, days: float = AFTER, *, untagged: bool = False) -> dict[str, int]:
    """Collect names and bytes; the dry run before said the same."""
    swept = sweep(registry.pushed, days, untagged=untagged)
    registry.store.collect()
    return dict(swept.removed)


def images(store: Store) -> set[str]:
    return {name.path for name, _ in store.scan("v1.image")}


class TestImagesMadeOfManifests:
    """Needed by a tag that shows them, by what was pushed on top of them, and by nothing else."""

    def test_they_stay_as_long_as_the_tag(self, registry: Both, tmp_path: Path) -> None:
        """And go after it, with their json and the layer that was packed anew; links go as ever."""
        sample = Sample([new_tar(200_000)], pack=zstd, layer_type=ZSTD)
        registry.push(HOME, sample)
        ((image, layer),) = registry.pull(HOME, "latest", tmp_path)
        assert collect(registry) == {}
        assert registry.pull(HOME, "latest", tmp_path) == [(image, layer)]
        registry.delete(HOME, "latest")
        assert collect(registry, 3) == {}  # it can be brought back
        assert collect(registry)[MADE_IMAGES] == 2
        assert registry.registry.ask("GET", f"/v1/images/{image.id}/json").status == 404
        assert images(registry.store) == set()
        assert registry.store.read(lambda reads: reads.stat(Digest.parse(sha256(layer)))) is None
        assert registry.manifest(HOME, sample.manifest.digest).status_code == 200

    def test_a_tag_that_is_brought_back_shows_the_same(self, registry: Both, tmp_path: Path) -> None:
        """Collected in between or not."""
        registry.push(HOME, Sample([new_tar(), new_tar()]))
        before = registry.pull(HOME, "latest", tmp_path)
        registry.delete(HOME, "latest")
        collect(registry, 3)
        undelete(registry.store, Target.of(f"{HOME}:latest"))
        assert registry.pull(HOME, "latest", tmp_path) == before
        assert MADE_IMAGES not in collect(registry)

    def test_a_shared_base_stays_for_the_other_tag(self, registry: Both, tmp_path: Path) -> None:
        """What the replaced tag alone showed goes."""
        base = new_tar()
        for tag in ("one", "two"):
            registry.push(HOME, Sample([base, new_tar()]), tag)
            (tmp_path / tag).mkdir()
            registry.pull(HOME, tag, tmp_path / tag)
        kept = registry.pull(HOME, "two", tmp_path / "two")
        registry.push(HOME, Sample([new_tar()]), "one")
        assert collect(registry)[MADE_IMAGES] == 2
        assert registry.pull(HOME, "two", tmp_path / "two") == kept
        assert images(registry.store) == {*(each.id for each, _ in kept), registry.image(HOME, "one")}

    def test_what_was_pushed_on_top_keeps_what_it_stands_on(self, registry: Both, tmp_path: Path) -> None:
        """For good, as images of v1 are kept; also while it is only arriving."""
        sample = Sample([new_tar()])
        registry.push(HOME, sample)
        base = registry.image(HOME)
        top = new_id()
        body, ask = image_json(top, base), registry.registry
        assert ask.put_json(top, body).status == 200
        registry.delete(HOME, "latest")
        assert ask.put_layer(top, b"layer on top").status == 200
        assert ask.put_checksum(top, payload(body, b"layer on top")).status == 200
        assert ask.tag(HOME, "top", top).status == 200
        collect(registry)
        assert [layer for _, layer in registry.pull(HOME, "top", tmp_path)] == [*sample.layers, b"layer on top"]

    def test_a_tag_of_v1_on_one_keeps_it(self, registry: Both, tmp_path: Path) -> None:
        """As on any other image."""
        sample = Sample([new_tar(), new_tar()])
        registry.push(HOME, sample)
        image_id = registry.image(HOME)
        assert image_id is not None
        assert registry.registry.tag(HOME, "own", image_id).status == 200
        registry.delete(HOME, "latest")
        collect(registry)
        assert [layer for _, layer in registry.pull(HOME, "own", tmp_path)] == sample.layers

    def test_an_image_that_a_push_lists_is_an_image_like_any_other(self, registry: Both, tmp_path: Path) -> None:
        """An engine that pulled it and pushes something on it names it first."""
        registry.push(HOME, Sample([new_tar()]))
        image_id = registry.image(HOME)
        registry.v1.index("PUT", f"/v1/repositories/{HOME}/", [{"id": image_id}])
        registry.delete(HOME, "latest")
        collect(registry)
        assert registry.registry.ask("GET", f"/v1/images/{image_id}/json").status == 200

    @pytest.mark.parametrize("tagged", [False, True])
    def test_a_push_that_begins_while_they_are_collected_finds_what_it_stands_on(
        self, registry: Both, tmp_path: Path, tagged: bool
    ) -> None:
        """Either it is there, and stays; or it is gone before the push is let begin. Here it came first."""
        sample = Sample([new_tar()])
        registry.push(HOME, sample)
        base, top = registry.image(HOME), new_id()
        assert base is not None
        registry.push(HOME, Sample([new_tar()]))  # nothing shows the first one any more
        body, ask = image_json(top, base), registry.registry
        registry.registry.clock.now += AFTER * DAY_S
        begun: list[int] = []

        def push() -> None:
            """Once the collector has seen that nothing needs it."""
            if registry.store.scan("gc.mark") and not begun:
                begun.append(ask.tag(HOME, "base", base).status if tagged else ask.put_json(top, body).status)

        sweep(registry.pushed, AFTER, progress=push)
        assert begun == [200]
        registry.store.collect()
        if tagged:
            assert [layer for _, layer in registry.pull(HOME, "base", tmp_path)] == sample.layers
            return
        assert ask.put_layer(top, b"a layer on top").status == 200
        assert ask.put_checksum(top, payload(body, b"a layer on top")).status == 200
        assert ask.tag(HOME, "top", top).status == 200
        assert [layer for _, layer in registry.pull(HOME, "top", tmp_path)] == [*sample.layers, b"a layer on top"]

    @pytest.mark.parametrize("way", ["tag", "view", "child"])
    def test_one_that_is_needed_again_half_way_through_is_whole_again(
        self, registry: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        """Its two rows may go in two steps; whoever needs it in between finds, or makes, both."""
        monkeypatch.setattr("api.content.collect.STEP", 1)
        sample = Sample([new_tar()])
        registry.push(HOME, sample)
        base = registry.image(HOME)
        assert base is not None
        registry.push(HOME, Sample([new_tar()]))
        registry.registry.clock.now += AFTER * DAY_S
        rows = Name("v1.in", f"{base}:{HOME}"), Name("v1.member", f"{HOME}:{base}")
        ask, top = registry.registry, new_id()
        done: list[bool] = []

        def need() -> None:
            """Once only the first of the rows is gone."""
            if [registry.store.get(row) is None for row in rows] != [True, False] or done:
                return
            done.append(True)
            if way == "tag":
                assert ask.tag(HOME, "again", base).status == 200
            elif way == "view":
                registry.push(HOME, sample, "again")
                assert registry.image(HOME, "again") == base
            else:
                body = image_json(top, base)
                assert ask.put_json(top, body).status == ask.put_layer(top, b"on top of it").status == 200
                assert ask.put_checksum(top, payload(body, b"on top of it")).status == 200
                assert ask.tag(HOME, "again", top).status == 200

        sweep(registry.pushed, AFTER, progress=need)
        assert done == [True]
        assert None not in [registry.store.get(row) for row in rows]
        assert [layer for _, layer in registry.pull(HOME, "again", tmp_path)][:1] == sample.layers

    def test_a_deleted_repository_takes_them_along_and_brings_them_back(self, registry: Both, tmp_path: Path) -> None:
        """Everything it had, until that is final."""
        registry.push(HOME, Sample([new_tar()]))
        before = registry.pull(HOME, "latest", tmp_path)
        for final in (False, True):
            assert registry.registry.ask("DELETE", f"/v1/repositories/{HOME}/").status == 200
            collect(registry, AFTER if final else 3)
            if not final:
                undelete(registry.store, Target.of(HOME))
                assert registry.pull(HOME, "latest", tmp_path) == before
        assert images(registry.store) == set()


class TestManifestsMadeOfImages:
    """Needed by a tag that shows them, by a manifest that names them, and by nothing else."""

    @pytest.mark.parametrize("untagged", [True, False])
    def test_they_stay_as_long_as_the_tag(self, registry: Both, untagged: bool) -> None:
        """And go after it, asked for or not: nobody pushed them. The layer that was packed goes, the images stay."""
        (image,) = registry.push_v1(HOME, [new_tar(50_000)])
        first = registry.manifest(HOME)
        packed_layer = registry.pull_v2(HOME)[0]["layers"][0]["digest"]
        assert collect(registry, untagged=untagged) == {}
        assert registry.pull_v2(HOME)
        registry.registry.ask("DELETE", f"/v1/repositories/{HOME}/tags/latest")
        assert collect(registry, 3, untagged=untagged) == {}
        removed = collect(registry, untagged=untagged)
        assert removed[MADE_MANIFESTS] == 1
        assert registry.manifest(HOME, first.headers["docker-content-digest"]).status_code == 404
        assert registry.client.blob(HOME, packed_layer).status_code == 404
        assert registry.store.read(lambda reads: reads.stat(Digest.parse(packed_layer))) is None
        assert registry.registry.ask("GET", f"/v1/images/{image.id}/json").status == 200
        assert registry.registry.tag(HOME, "again", image.id).status == 200
        assert registry.manifest(HOME, "again").content == first.content
        registry.pull_v2(HOME, "again")

    def test_what_the_tag_showed_before_goes_once_it_shows_something_else(self, registry: Both) -> None:
        """Whoever wrote it since."""
        registry.push_v1(HOME, [packed(new_tar())])
        old = registry.manifest(HOME).headers["docker-content-digest"]
        registry.push(HOME, Sample([new_tar()]))
        assert collect(registry)[MADE_MANIFESTS] == 1
        assert registry.manifest(HOME, old).status_code == 404

    def test_an_index_that_names_one_keeps_it(self, registry: Both) -> None:
        """Somebody relies on it now."""
        registry.push_v1(HOME, [packed(new_tar())])
        made = registry.manifest(HOME)
        child = {"mediaType": made.headers["content-type"], "digest": made.headers["docker-content-digest"]}
        registry.put(HOME, index([{**child, "size": len(made.content)}]), "index")
        registry.registry.ask("DELETE", f"/v1/repositories/{HOME}/tags/latest")
        assert MADE_MANIFESTS not in collect(registry)
        assert registry.manifest(HOME, child["digest"]).content == made.content

    def test_one_that_was_pushed_as_well_stays_like_any_other(self, registry: Both) -> None:
        """By its digest, without a tag."""
        registry.push_v1(HOME, [packed(new_tar())])
        made = registry.manifest(HOME)
        digest = made.headers["docker-content-digest"]
        path = f"/v2/{HOME}/manifests/{digest}"
        assert registry.client.ask("PUT", path, made.content, content_type=made.headers["content-type"]).is_success
        registry.registry.ask("DELETE", f"/v1/repositories/{HOME}/tags/latest")
        assert MADE_MANIFESTS not in collect(registry)
        assert registry.manifest(HOME, digest).status_code == 200

    def test_notes_of_layers_go_with_the_layers(self, registry: Both) -> None:
        """They keep nothing alive, and nothing keeps them beyond that."""
        registry.push_v1(HOME, [packed(new_tar())])
        registry.pull_v2(HOME)
        assert len(registry.store.scan(LAYER)) == 1
        registry.registry.ask("DELETE", f"/v1/repositories/{HOME}/")
        collect(registry)
        assert collect(registry) == {"notes of layers that are gone": 1}
        assert registry.store.scan(LAYER) == []


def test_usage_counts_what_was_made_with_the_tag(registry: Both, tmp_path: Path) -> None:
    """What deleting it frees; nothing of it is left over, and a shared layer is the tag's once."""
    registry.push(HOME, Sample([new_tar(300_000)]), "new")
    registry.push_v1(HOME, [tar(noise=new_data(300_000))], "old")
    registry.pull(HOME, "new", tmp_path)
    registry.pull_v2(HOME, "old")
    report = usage.of_repository(registry.store, Repository.of(HOME))
    lines = {line.name: line for line in report.lines}
    assert lines[UNTAGGED].logical == 0
    assert 300_000 < lines["new"].unique < 310_000
    assert 600_000 < lines["old"].unique < 620_000  # the layer as it came, and packed
    (whole,) = usage.of_store(registry.store).lines
    assert whole.unique == sum(line.unique for line in lines.values())


def test_a_check_names_the_tag_whose_view_is_damaged(registry: Both, tmp_path: Path) -> None:
    """A configuration or json that was made, like one that was pushed."""
    registry.push(HOME, Sample([new_tar()]), "new")
    registry.push_v1(HOME, [packed(new_tar())], "old")
    ((image, _),) = registry.pull(HOME, "new", tmp_path)
    config = registry.pull_v2(HOME, "old")[0]["config"]["digest"]
    named = Whereabouts(registry.store)
    assert named.of([Digest.parse(config)], [Name("link", f"{HOME}@{config}")]) == [f"{HOME}:old"]
    assert named.of([Digest.of(image.json)], [Name("v1.image", image.id)]) == [f"{HOME}:new"]


def test_everything_that_was_made_survives_the_loss_of_the_index(tmp_path: Path) -> None:
    """Ids, digests, bytes."""
    root = tmp_path / "root"
    with both(root) as registry:
        registry.push(HOME, Sample([new_tar()], [{}, {"empty_layer": True}], pack=zstd, layer_type=ZSTD), "new")
        registry.push_v1(HOME, [new_tar()], "old")
        before = registry.pull(HOME, "new", tmp_path), registry.manifest(HOME, "old").content
        assert before[0][1][1] == EMPTY
    for file in (root / "index").iterdir():
        file.unlink()
    rebuild_index(root)
    with both(root) as registry:
        after = registry.pull(HOME, "new", tmp_path), registry.manifest(HOME, "old").content
        assert after == before
        registry.pull_v2(HOME, "old")
