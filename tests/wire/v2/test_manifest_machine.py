"""Manifests, tags and referrers in any order of pushes and deletes, against a model of a few dictionaries."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.wire.v2.content import Document, Home, index
from tests.wire.v2.pushing import pushing, sha256

TAGS = ("a", "b", "latest")
LAYERS = (b"one", b"two")
numbers = st.integers(0, 2)
tags = st.sampled_from(TAGS)


class Manifests(RuleBasedStateMachine):
    """One repository with a handful of manifests: images on two layers, their referrers, and indexes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        root = Path(tempfile.mkdtemp())
        self.stack.callback(shutil.rmtree, root)
        registry = self.stack.enter_context(pushing(root / "root"))
        self.home = Home(self.stack.enter_context(closing(registry.client())), name="m/m", layers=LAYERS)
        self.known: dict[str, Document] = {}
        self.there: dict[str, Document] = {}
        self.tags: dict[str, str] = {}
        self.subjects: dict[str, str] = {}
        self.layers = set(LAYERS)

    def teardown(self) -> None:
        self.stack.close()

    def image(self, number: int) -> Document:
        return self.home.numbered(number)

    def expect_push(self, manifest: Document, needs: set[str], reference: str) -> bool:
        answer = self.home.put(manifest, reference)
        fits = needs <= set(self.there) and (bool(needs) or self.layers == set(LAYERS))
        assert answer.status_code == (201 if fits else 400), answer.text
        if fits:
            self.known[manifest.digest] = self.there[manifest.digest] = manifest
        return fits

    @rule(number=numbers, tag=tags)
    def push_image(self, number: int, tag: str) -> None:
        image = self.image(number)
        if self.expect_push(image, set(), tag):
            self.tags[tag] = image.digest

    @rule(number=numbers, several=st.sets(tags))
    def push_image_with_tags(self, number: int, several: set[str]) -> None:
        image = self.image(number)
        reference = f"{image.digest}?" + "&".join(f"tag={tag}" for tag in several)
        if self.expect_push(image, set(), reference):
            self.tags |= dict.fromkeys(several, image.digest)

    @rule(number=numbers, subject=numbers)
    def push_referrer(self, number: int, subject: int) -> None:
        artifact = self.home.image(subject=self.image(subject).descriptor, artifactType=f"application/t{number}")
        if self.expect_push(artifact, set(), artifact.digest):
            self.subjects[artifact.digest] = self.image(subject).digest

    @rule(number=numbers, other=numbers, tag=tags)
    def push_index(self, number: int, other: int, tag: str) -> None:
        children = [self.image(number), self.image(other)]
        outer = index(children)
        if self.expect_push(outer, {child.digest for child in children}, tag):
            self.tags[tag] = outer.digest

    @rule(tag=tags)
    def delete_tag(self, tag: str) -> None:
        assert self.home.delete(tag) == (202 if self.tags.pop(tag, None) else 404)

    @rule(data=st.data())
    def delete_manifest(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted({sha256(b"never pushed"), *self.known})))
        there = self.there.pop(digest, None)
        assert self.home.delete(digest) == (202 if there else 404)
        self.tags = {tag: its for tag, its in self.tags.items() if its != digest}
        self.subjects.pop(digest, None)

    @rule(layer=st.sampled_from(LAYERS))
    def delete_layer(self, layer: bytes) -> None:
        answer = self.home.client.blob(self.home.name, sha256(layer), "DELETE")
        assert answer.status_code == (202 if layer in self.layers else 404)
        self.layers.discard(layer)

    @rule(layer=st.sampled_from(LAYERS))
    def push_layer(self, layer: bytes) -> None:
        self.home.client.push(self.home.name, layer)
        self.layers.add(layer)

    @invariant()
    def what_was_pushed_and_not_deleted_is_there(self) -> None:
        assert self.home.tags() == sorted(self.tags)
        for tag in TAGS:
            got = self.home.get(tag)
            assert got.status_code == (200 if tag in self.tags else 404)
            if tag in self.tags:
                assert got.content == self.there[self.tags[tag]].body
        for digest in self.known:
            assert self.home.get(digest, "HEAD").status_code == (200 if digest in self.there else 404)
        for number in range(3):
            subject = self.image(number).digest
            listed = sorted(each["digest"] for each in self.home.referrers(subject))
            assert listed == sorted(digest for digest, its in self.subjects.items() if its == subject)


TestManifests = Manifests.TestCase
TestManifests.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
