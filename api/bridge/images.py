"""Tags on manifests as v1 images: made when a v1 client first asks, in one change with the tag's note of them.

An id may be taken. Where it stands for the same layer on the same parent, the first json stays, as far as this
repository shows it already; json of other repositories is nobody's business here, and is shared only where it is the
same. Everything else gets another id (see `to_v1`), and so does what stands on it. Nothing is ever overwritten.
Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final, final

from api.bridge import layers, pushed, to_v1
from api.bridge.asked import Asked, Overtaken
from api.bridge.layers import BadLayer, Found
from api.bridge.pushed import Platform
from api.bridge.refused import Refused
from api.bridge.to_v1 import EMPTY, Blob, NoImage, NotNow, Source
from api.content import tags
from api.content.repository import Repository
from api.v1 import homes
from api.v1.image import EMPTY_LAYER, Image, find_complete
from cas import Digest, Missing, Names, Reads

_TRIES_OF_ID: Final = 8  # against whoever took ids on purpose


def image_of(asked: Asked) -> tags.Image | None:
    """Return the v1 image of a tag; None if there is no such tag, or v1 cannot have what it points to.

    Raises:
        Damaged: what it points to cannot be read.
        NoSpace, DiskFailed, ReadOnly, Busy: try again later.
    """
    try:
        return asked.settle(
            partial(_shown, asked.repository),
            partial(_is_damaged, asked.repository),
            partial(_make_unless_refused, asked),
        )
    except (NoImage, Missing):
        return None


def is_refused(reads: Reads, refused: Refused, repository: Repository, tag: tags.Tag, platform: Platform) -> bool:
    """Tell whether rows alone say that there never is a v1 image of a tag: a small part of what asking for it costs."""
    if tag.image is not None or tag.manifest is None:
        return False
    if tag.manifest in refused:
        return True
    is_none = pushed.is_none(reads, repository, tag.manifest, platform)
    if is_none:
        refused.add(tag.manifest)
    return is_none


def _shown(repository: Repository, reads: Reads, tag: tags.Tag) -> tags.Image | None:
    """Return what a tag shows already, as long as that is there."""
    if isinstance(tag.target, tags.Image):
        return tag.target
    view = tag.image
    return view if view is not None and homes.is_seen(reads, repository, view.id) else None


def _is_damaged(repository: Repository, reads: Reads, image: tags.Image) -> bool:
    return homes.is_damaged(reads, repository, image.id)


def _make_unless_refused(asked: Asked, tag: tags.Tag, again: Callable[[Names], tags.Image | None]) -> tags.Image:
    assert isinstance(tag.target, tags.Manifest), "else it shows itself"
    if tag.target in asked.refused:
        raise NoImage("it was refused before")
    try:
        return _make(asked, tag.target, again)
    except NotNow:
        raise
    except NoImage:
        asked.refused.add(tag.target)
        raise


def _make(asked: Asked, target: tags.Manifest, again: Callable[[Names], tags.Image | None]) -> tags.Image:
    store, most = asked.store, asked.settings.max_chain
    with asked.parsing:
        image = pushed.read(store, asked.repository, target, Platform.of(asked.settings.platform))
        to_v1.read(image.config, image.layers, most)  # refuses before anything is unpacked
        diff_ids = to_v1.diff_ids(image.config)
    with ExitStack() as made:
        served = _Served(asked, made)
        blobs = [served.layer(*each) for each in zip(image.layers, diff_ids, strict=True)]
        with asked.parsing:
            chain = _Chain(asked.repository, to_v1.read(image.config, blobs, most), asked.now)
        plan = store.read(chain.plan)
        bodies = [each.json for each in plan if each.json is not None]
        if any(each.image.layer == EMPTY.digest for each in plan):
            bodies.append(EMPTY_LAYER)
        staged = [asked.stage(body, made) for body in bodies]

        def edit(names: Names) -> tags.Image:
            there = again(names)
            if there is not None:
                return there  # somebody else was faster
            for each in staged:
                names.keep(each)
            for digest, found in served.converted:
                layers.put(names, digest, found)
            current = chain.plan(names)  # others may have taken ids meanwhile, or made the same images
            if any(each.json is not None and names.stat(each.image.json) is None for each in current):
                raise Overtaken
            for planned in current:
                if planned.json is not None:
                    names.put(planned.image.name, planned.image.record())
                homes.show(names, asked.repository, planned.image, asked.now)
            view = tags.Image(current[-1].image.id)
            asked.note(names, target, view)
            return view

        return store.change(edit)


@dataclass(frozen=True, slots=True)
class _Planned:
    """One image of a chain, and its json unless it is here already."""

    image: Image
    json: bytes | None


@final
@dataclass(frozen=True, slots=True)
class _Chain:
    """A chain that needs an id for each image."""

    repository: Repository
    source: Source
    now: float

    def plan(self, reads: Reads) -> list[_Planned]:
        """Find ids, base first: such as are free, or stand for just this.

        Raises:
            NoImage: there are none.
        """
        plan: list[_Planned] = []
        parent: str | None = None
        for at in range(len(self.source.entries)):
            plan.append(self._place(reads, at, parent))
            parent = plan[-1].image.id
        return plan

    def _place(self, reads: Reads, at: int, parent: str | None) -> _Planned:
        image_id, json = self.source.derive(at, parent)
        for _ in range(_TRIES_OF_ID):
            image = self._image(at, parent, image_id, json)
            there = find_complete(reads, image_id)
            if there is None:
                return _Planned(image, json)
            if (there.layer, there.parent) == (image.layer, parent):
                informs = not self.source.is_top(at) and homes.is_seen(reads, self.repository, image_id)
                if there.json == image.json and reads.stat(image.json) is None:
                    return _Planned(there, json)  # damage took it
                if there.json == image.json or informs:
                    return _Planned(there, None)
            image_id, json = self.source.again(at, parent, image_id, json)
        raise NotNow("its ids are taken")

    def _image(self, at: int, parent: str | None, image_id: str, json: bytes) -> Image:
        blob = self.source.entries[at].blob
        return Image(
            id=image_id,
            complete=True,
            json=Digest.of(json),
            json_bytes=len(json),
            parent=parent,
            chain=at + 1,
            layer=blob.digest,
            layer_bytes=blob.size,
            began=int(self.now),
            at=self.now,
        )


@final
@dataclass(slots=True)
class _Served:
    """Layers as v1 clients get them; `converted` are those that had to be looked into."""

    asked: Asked
    made: ExitStack
    converted: list[tuple[Digest, Found]] = field(default_factory=list)

    def layer(self, blob: Blob, diff_id: object) -> Blob:
        if blob.size < layers.LEAST_BYTES:
            return EMPTY
        inside = self.asked.inside
        if not inside.is_zstd(blob.digest):
            return blob
        try:
            found = inside.look(blob.digest, self.made)
        except BadLayer as error:
            raise NoImage(f"its layer {blob.digest} is bad: {error}") from None
        if str(found.inside.diff) != diff_id:
            raise NoImage(f"its layer {blob.digest} is not what its configuration says")
        self.converted.append((blob.digest, found))
        return found.inside.blob
