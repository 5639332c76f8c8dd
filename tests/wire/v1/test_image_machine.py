"""The states of images against a model: any order of steps by any number of pushers, layers overlapping, and damage."""

# ruff: noqa: SLF001 - damage is made inside, not only from the front

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from api.errors import ApiError
from api.v1 import images, views
from api.v1.homes import EVERYWHERE
from api.v1.settings import V1Settings
from cas import Digest, Missing, Store
from tests.wire.v1.talk import image_json, payload

IDS = [f"{number}" * 64 for number in range(1, 4)]
LAYERS = [b"first layer", b"second layer", b"third" * 40_000]
CHOICES = st.integers(0, len(LAYERS) - 1)
LIMITS = V1Settings()


@dataclass
class Model:
    """What an image must be."""

    json: bytes
    parent: str | None
    announced: str = ""
    layer: bytes | None = None
    complete: bool = False
    contended: bool = False
    anew: Model | None = None  # what is pushed of it since it was lost


@dataclass
class Sending:
    """A layer under way into a store, which may have been closed since."""

    store: Store
    image_id: str
    json: bytes
    upload: images.LayerUpload


class Images(RuleBasedStateMachine):
    """No step ever changes a complete image, and none completes one whose bytes were not proven."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.store = Store.open(self.root / "store", create=True)
        self.model: dict[str, Model] = {}
        self.lost: set[bytes] = set()

    sendings = Bundle("sendings")

    @property
    def place(self) -> images.Place:
        return images.Place(self.store, LIMITS, sees=lambda *_: True)

    def refused(self, status: int | None, step: object, *arguments: object) -> None:
        assert callable(step)
        outcome = None
        try:
            step(*arguments)
        except ApiError as error:
            outcome = error.status
        except Missing:
            outcome = 404
        assert outcome == status

    def is_lost(self, image: Model) -> bool:
        return not self.lost.isdisjoint({image.json, image.layer})

    def pushed(self, image_id: str) -> Model | None:
        """Return what a push of an image goes on with."""
        image = self.model.get(image_id)
        if image is None or not image.complete:
            return image
        return image.anew or (None if self.is_lost(image) else image)

    def complete(self, image_id: str) -> None:
        image = self.model[image_id]
        if image.anew is not None:
            image.contended, image.anew = image.contended or image.anew.contended, None
        image.complete = True

    @rule(image_id=st.sampled_from(IDS), part=st.sampled_from(["json", "layer"]))
    def lose(self, image_id: str, part: str) -> None:
        """Lose what lies in the index: of other things the store may find that it has them still."""
        image = self.model.get(image_id)
        data = None if image is None else getattr(image, part)
        if data is not None and len(data) < 1000 and data not in self.lost:
            self.store._parts.index.write(lambda edit: edit.lose_blob(Digest.of(data)))
            self.lost.add(data)

    @rule(
        image_id=st.sampled_from(IDS),
        parent=st.none() | st.sampled_from(IDS),
        comment=st.sampled_from("ab"),
        announced=st.none() | CHOICES,
    )
    def put_json(self, image_id: str, parent: str | None, comment: str, announced: int | None) -> None:
        self.begin(image_id, parent, image_json(image_id, parent, comment=comment), announced)

    @rule(image_id=st.sampled_from(IDS), announced=st.none() | CHOICES)
    def put_its_json_again(self, image_id: str, announced: int | None) -> None:
        image = self.model.get(image_id)
        if image is not None:
            self.begin(image_id, image.parent, image.json, announced)

    @rule(image_id=st.sampled_from(IDS), choice=st.integers(0, 1), part=st.sampled_from(["json", "layer"]))
    def push_and_lose(self, image_id: str, choice: int, part: str) -> None:
        """Every other image is one that damage comes to."""
        if image_id not in self.model:
            self.begin(image_id, None, image_json(image_id), None)
            self.end_layer(self.begin_layer(image_id), choice)
            self.put_checksum(image_id, choice)
            self.lose(image_id, part)

    def begin(self, image_id: str, parent: str | None, body: bytes, announced: int | None) -> None:
        checksum = "" if announced is None else payload(body, LAYERS[announced])
        before = self.model.get(image_id)
        status = None
        if parent is not None and (parent not in self.model or self.descends(parent, image_id)):
            status = 400
        elif before is not None and before.complete and not (before.json == body and self.is_lost(before)):
            status = 409
        self.refused(status, images.put_json, self.place, image_id, body, checksum)
        if status is not None:
            return
        replaced = before.anew if before is not None and before.complete else before
        same = replaced is not None and replaced.json == body and not self.is_lost(replaced)
        layer = replaced.layer if replaced is not None and same else None
        image = Model(body, parent, checksum, layer, contended=replaced is not None)
        if before is not None and before.complete:
            before.anew = image
        else:
            self.model[image_id] = image
        self.lost.discard(body)

    def descends(self, image_id: str | None, ancestor: str) -> bool:
        while image_id is not None:
            if image_id == ancestor:
                return True
            image_id = self.model[image_id].parent
        return False

    @rule(target=sendings, image_id=st.sampled_from(IDS))
    def begin_layer(self, image_id: str) -> object:
        image = self.pushed(image_id)
        if image is not None and image.json not in self.lost and not (image.complete and not image.contended):
            return Sending(self.store, image_id, image.json, images.LayerUpload(self.place, image_id))
        status = 409 if image is not None and image.complete else 404
        self.refused(status, images.LayerUpload, self.place, image_id)
        return multiple()

    @rule(sending=consumes(sendings), choice=CHOICES)
    def end_layer(self, sending: Sending, choice: int) -> None:
        layer = LAYERS[choice]
        if sending.store is not self.store:
            return
        sending.upload.upload.write(layer)
        whole, image = self.model[sending.image_id], self.pushed(sending.image_id)
        if image is None:
            self.refused(404, sending.upload.commit)
        elif image.complete:
            same = image.contended and (image.json, image.layer) == (sending.json, layer)
            self.refused(None if same else 409, sending.upload.commit)
        elif image.json != sending.json or (whole.complete and whole.layer != layer):
            self.refused(409, sending.upload.commit)
        elif image.json in self.lost:
            self.refused(404, sending.upload.commit)
        elif image.announced and image.announced != payload(image.json, layer):
            self.refused(400, sending.upload.commit)
            image.layer = None
            self.lost.discard(layer)
        else:
            self.refused(None, sending.upload.commit)
            image.layer = layer
            self.lost.discard(layer)
            if image.announced:
                self.complete(sending.image_id)

    @rule(sending=consumes(sendings))
    def break_off_layer(self, sending: Sending) -> None:
        if sending.store is self.store:
            sending.upload.upload.write(b"some bytes")
            sending.upload.discard()

    @rule(image_id=st.sampled_from(IDS), choice=CHOICES)
    def put_checksum(self, image_id: str, choice: int) -> None:
        layer = LAYERS[choice]
        image = self.pushed(image_id)
        checksum = payload(image.json if image else b"", layer)
        status = None
        if image is None:
            status = 404
        elif image.complete and not (image.contended and image.layer == layer):
            status = 409
        elif image.layer != layer or self.is_lost(image):
            status = 400
        claim = images.Claim(checksum, None)
        self.refused(status, images.put_checksum, self.place, image_id, claim)
        if image is not None and status is None:
            self.complete(image_id)

    @rule()
    def reopen(self) -> None:
        """The sendings under way are lost with the process; nothing else is."""
        self.store.close()
        self.store = Store.open(self.root / "store")

    @invariant()
    def readers_see_complete_images_and_no_others(self) -> None:
        for image_id in IDS:
            image = self.model.get(image_id)
            if image is None or not image.complete:
                self.refused(404 if image is None else 400, views.read_json, self.store, EVERYWHERE, image_id)
                continue
            if self.is_lost(image):
                self.refused(404, views.read_json, self.store, EVERYWHERE, image_id)
                self.refused(404, views.open_layer, self.store, EVERYWHERE, image_id)
                continue
            view = views.read_json(self.store, EVERYWHERE, image_id)
            with views.open_layer(self.store, EVERYWHERE, image_id) as reader:
                layer = reader.read()
            assert (view.body, layer) == (image.json, image.layer)
            assert view.checksum == payload(view.body, layer)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)


TestImages = Images.TestCase
TestImages.settings = settings(max_examples=settings().max_examples // 3, stateful_step_count=30)
