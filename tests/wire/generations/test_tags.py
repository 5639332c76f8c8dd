"""One name space of tags: whoever writes last wins, and both generations see the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.content import tags
from api.content.repository import Repository
from api.content.undelete import Target, undelete
from tests.wire.generations.both import EMPTY, Both, Sample, new_tar, packed, sha
from tests.wire.v1.talk import image_json, new_id, new_repository, payload
from tests.wire.v2.content import Home


def test_the_last_writer_wins_for_both(registry: Both) -> None:
    """v1 over v2 over v1, each seen by both at once, the old view of neither left."""
    repository, seen = new_repository(), []
    for number in range(2):
        images = registry.push_v1(repository, [packed(new_tar())])
        assert registry.image(repository) == images[-1].id
        seen.append(registry.manifest(repository).headers["docker-content-digest"])
        sample = Sample([new_tar()])
        pushed = registry.push(repository, sample)
        assert registry.manifest(repository).content == pushed.body
        seen += [pushed.digest, str(registry.image(repository))]
        assert registry.tags_v1(repository) == {"latest": seen[-1]}
        assert registry.tags(repository) == ["latest"], number
    assert len(set(seen)) == len(seen)


def test_deleting_by_v1_removes_what_v2_pushed(registry: Both) -> None:
    """Whether v1 had looked at it before or not; a tag that is no image to v1 is not there to be deleted."""
    repository = new_repository()
    for tag in ("seen", "unseen"):
        registry.push(repository, Sample([new_tar()]), tag)
    registry.client.push(repository, b"{}")
    assert registry.image(repository, "seen") is not None
    for tag in ("seen", "unseen"):
        assert registry.registry.ask("DELETE", f"/v1/repositories/{repository}/tags/{tag}").status == 200
        assert registry.manifest(repository, tag).status_code == 404
        assert registry.image(repository, tag) is None
    home = Home(registry.client, repository)
    home.push(home.image(artifactType="application/vnd.test"), "artifact")
    answer = registry.registry.ask("DELETE", f"/v1/repositories/{repository}/tags/artifact")
    assert (answer.status, answer.value) == (404, {"error": "Tag not found: artifact"})
    assert registry.tags(repository) == ["artifact"]


def test_deleting_a_tag_by_v2_removes_what_v1_pushed(registry: Both) -> None:
    """Whether v2 had looked at it before or not; the images stay, as v1 wants it."""
    repository = new_repository()
    images = {tag: registry.push_v1(repository, [packed(new_tar())], tag)[-1] for tag in ("seen", "unseen")}
    registry.pull_v2(repository, "seen")
    home = Home(registry.client, repository)
    for tag, image in images.items():
        assert home.delete(tag) == 202
        assert (registry.image(repository, tag), home.get(tag).status_code, home.delete(tag)) == (None, 404, 404)
        assert registry.registry.ask("GET", f"/v1/images/{image.id}/json").status == 200


def test_deleting_a_manifest_that_was_made_removes_the_tags_that_show_it(registry: Both) -> None:
    """All of them, and no other; all of it can be brought back, with the same digest."""
    repository = new_repository()
    (image,) = registry.push_v1(repository, [packed(new_tar())], "one", "two")
    registry.push_v1(repository, [packed(new_tar())], "other")
    home = Home(registry.client, repository)
    digests = {tag: home.get(tag).headers["docker-content-digest"] for tag in ("one", "two", "other")}
    assert digests["one"] == digests["two"]
    assert home.delete(digests["one"]) == 202
    assert registry.tags_v1(repository).keys() == {"other"}
    assert home.tags() == ["other"]
    undelete(registry.store, Target.of(f"{repository}@{digests['one']}"))
    assert home.get("one").headers["docker-content-digest"] == digests["one"]
    assert registry.tags_v1(repository)["two"] == image.id


def test_a_tag_that_v1_deleted_comes_back_with_what_it_was_to_v2(registry: Both) -> None:
    """And the other way round."""
    repository = new_repository()
    registry.push_v1(repository, [packed(new_tar())], "old")
    registry.push(repository, Sample([new_tar()]), "new")
    home = Home(registry.client, repository)
    before = [(home.get(tag).content, registry.image(repository, tag)) for tag in ("old", "new")]
    for tag in ("old", "new"):
        assert registry.registry.ask("DELETE", f"/v1/repositories/{repository}/tags/{tag}").status == 200
        undelete(registry.store, Target.of(f"{repository}:{tag}"))
    assert [(home.get(tag).content, registry.image(repository, tag)) for tag in ("old", "new")] == before


def test_conditions_of_a_push_know_what_a_tag_of_v1_shows(registry: Both) -> None:
    """`If-Match` with the entity tag that was answered; `If-None-Match: *` refuses whatever generation wrote it."""
    repository = new_repository()
    registry.push_v1(repository, [packed(new_tar())])
    home = Home(registry.client, repository)
    manifest = home.image()
    assert home.put(manifest, "latest", if_none_match="*").status_code == 412
    etag = home.get("latest").headers["etag"]
    registry.push_v1(repository, [packed(new_tar())])
    assert home.put(manifest, "latest", if_match=etag).status_code == 412
    assert home.put(manifest, "latest", if_match=home.get("latest").headers["etag"]).status_code == 201
    assert home.get("latest").content == manifest.body


def test_pushing_the_manifest_that_was_made_makes_it_an_ordinary_one(registry: Both) -> None:
    """A client that pulled it and pushes it back; then its tag is v2's."""
    repository = new_repository()
    registry.push_v1(repository, [packed(new_tar())])
    home = Home(registry.client, repository)
    made = home.get("latest")
    answer = registry.client.ask(
        "PUT", home.path("again"), made.content, content_type=made.headers["content-type"], if_none_match="*"
    )
    assert answer.status_code == 201
    found = registry.store.read(lambda reads: tags.find(reads, Repository.of(repository), "again"))
    assert found is not None
    assert isinstance(found.target, tags.Manifest)
    assert registry.image(repository, "again") != registry.image(repository, "latest")


class TestClashes:
    """Ids of both generations are one space."""

    def ids(self, registry: Both, sample: Sample) -> tuple[str, str]:
        """Say which ids an image of two entries would get."""
        first = sha(f"{sha(sample.layers[0])} ".encode())
        return first, sha(f"{sha(sample.layers[1])} {first} ".encode() + sample.config)

    def push(self, registry: Both, repository: str, image_id: str, layer: bytes, parent: str | None = None) -> bytes:
        body = image_json(image_id, parent, comment="pushed")
        ask = registry.registry
        assert ask.put_json(image_id, body).status == 200
        assert ask.put_layer(image_id, layer).status == 200
        assert ask.put_checksum(image_id, payload(body, layer)).status == 200
        assert ask.tag(repository, "pushed", image_id).status == 200
        return body

    @pytest.mark.parametrize("which", [0, 1])
    def test_an_id_that_has_other_content_is_left_alone(self, registry: Both, tmp_path: Path, which: int) -> None:
        """Its owner gets what he pushed; the image made gets other ids from there on, and its own bytes."""
        repository, sample = new_repository(), Sample([new_tar(), new_tar()])
        taken = self.ids(registry, sample)[which]
        body = self.push(registry, repository, taken, b"another layer")
        registry.push(repository, sample)
        pulled = registry.pull(repository, "latest", tmp_path)
        assert [layer for _, layer in pulled] == sample.layers
        assert taken not in {each.id for each, _ in pulled}
        assert (pulled[0][0].id == self.ids(registry, sample)[0]) is (which == 1)
        assert registry.image(repository, "latest") == pulled[-1][0].id
        ((own, layer),) = registry.pull(repository, "pushed", tmp_path)
        assert (own.json, layer) == (body, b"another layer")

    def test_the_first_json_of_a_layer_stays_within_its_repository(self, registry: Both, tmp_path: Path) -> None:
        """It informs, no more: the same layer on the same parent keeps its id."""
        repository, sample = new_repository(), Sample([new_tar(), new_tar()])
        first, _ = self.ids(registry, sample)
        body = self.push(registry, repository, first, sample.layers[0])
        registry.push(repository, sample)
        pulled = registry.pull(repository, "latest", tmp_path)
        assert (pulled[0][0].id, pulled[0][0].json) == (first, body)

    def test_json_of_another_repository_is_never_shown(self, registry: Both, tmp_path: Path) -> None:
        """Two images on one base have one id for what each sets first; each shows its own."""
        base, seen = new_tar(), []
        for number in range(2):
            repository = new_repository()
            secret = {"created_by": f"ENV SECRET={number}", "empty_layer": True}
            history: list[dict[str, object]] = [{}, {**secret}, {"created_by": "CMD"}]
            registry.push(repository, Sample([base, new_tar()], history))
            (tmp_path / str(number)).mkdir()
            seen.append(registry.pull(repository, "latest", tmp_path / str(number)))
        for number, pulled in enumerate(seen):
            assert json.loads(pulled[1][0].json)["container_config"]["Cmd"] == [f"ENV SECRET={number}"]
            assert pulled[1][1] == EMPTY
        assert seen[0][0] == seen[1][0]
        assert seen[0][1][0].id != seen[1][1][0].id

    def test_a_push_onto_an_id_that_was_made_is_told_that_it_is_there(self, registry: Both) -> None:
        """As for any image: nothing of it can be replaced."""
        repository, sample = new_repository(), Sample([new_tar()])
        registry.push(repository, sample)
        image_id = registry.image(repository)
        assert image_id is not None
        answer = registry.registry.put_json(image_id, image_json(image_id))
        assert (answer.status, answer.value) == (409, {"error": "Image already exists"})
        assert registry.registry.put_layer(image_id, b"other").status == 409
        assert registry.registry.put_checksum(image_id, "sha256:" + "0" * 64).status == 409

    def test_an_engine_pushes_on_top_of_what_was_made(self, registry: Both, tmp_path: Path) -> None:
        """Pulled by v1, built on, pushed by v1: the base is there, and today's clients pull the whole."""
        repository, sample = new_repository(), Sample([new_tar()])
        registry.push(repository, sample)
        base = registry.image(repository)
        top, layer = new_id(), packed(new_tar())
        body = image_json(top, base)
        ask = registry.registry
        assert ask.put_json(top, body).status == ask.put_layer(top, layer).status == 200
        assert ask.put_checksum(top, payload(body, layer)).status == ask.tag(repository, "top", top).status == 200
        assert [each for _, each in registry.pull(repository, "top", tmp_path)] == [*sample.layers, layer]
        assert registry.pull_v2(repository, "top")[2] == [*sample.layers, layer]
