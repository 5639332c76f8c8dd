"""How an image comes to be: json, layer, checksum. The states of Registry v1 as changes to the store.

    unknown --put_json--> uploading --LayerUpload--> uploading, layer there --put_checksum--> complete

Every change looks at the image again inside the store's transaction, because two engines may push one image
at the same time. What completes it is a checksum over exactly the bytes that are stored. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, final

from api.errors import ApiError
from api.v1 import parsing, refusals
from api.v1.image import EMPTY_LAYER, Image, find, known
from api.v1.settings import V1Settings
from api.v1.tarsum import TARSUM, Form, payload_checksum, payload_hash, tarsum
from api.v1.unpack import TooMuch, Unreadable
from cas import Digest, Names, Staged, Store

READ_BYTES: Final = 1 << 20  # how much of a stored layer is looked at in one go


def put_json(store: Store, settings: V1Settings, image_id: str, body: bytes, announced: str) -> None:
    """Begin an image, or begin it anew while it is not complete.

    Raises:
        ApiError: 400 for json that is no image's, an unknown parent, or an impossible ancestry; 409 if the
            image is complete.
    """
    parent = parsing.image_json(body, image_id)
    digest = Digest.of(body)
    begun = partial(_begun, settings=settings, json=digest, json_bytes=len(body), parent=parent, announced=announced)
    begun(store, image_id)  # refuses the common cases before anything is written
    with store.upload() as upload:
        upload.write(body)
        staged = upload.finish(digest)

        def edit(names: Names) -> None:
            image = begun(names, image_id)
            names.keep(staged)
            names.put(image.name, image.record())

        store.change(edit)


def _begun(
    names: Names | Store,
    image_id: str,
    *,
    settings: V1Settings,
    json: Digest,
    json_bytes: int,
    parent: str | None,
    announced: str,
) -> Image:
    """Decide what an image is after its json came (again)."""
    before = find(names, image_id)
    chain = _chain(names, settings, image_id, parent, may_loop=before is not None)
    fresh = Image(image_id, False, json, json_bytes, parent, chain, announced=announced)  # noqa: FBT003
    if before is None:
        return fresh
    if before.complete:
        raise ApiError(*refusals.IMAGE_EXISTS)
    if before.json != json:
        return replace(fresh, contended=True)
    # Another engine pushes the same image. The layer it has brought already is as good for this json.
    return replace(before, chain=chain, announced=announced, contended=True)


def _chain(names: Names | Store, settings: V1Settings, image_id: str, parent: str | None, *, may_loop: bool) -> int:
    """Return the length of an ancestry; refuse one that is too long, broken, or comes back to its top."""
    length, above = 1, parent
    while above is not None:
        image = find(names, above)
        if image is None:
            raise ApiError(*refusals.NO_SUCH_PARENT)
        if above == image_id:
            raise ApiError(*refusals.OWN_ANCESTOR)
        # Nobody can descend from an image that did not exist, so what the parent remembers is enough then.
        length, above = (length + 1, image.parent) if may_loop else (length + image.chain, None)
        if length > settings.max_chain:
            raise ApiError(*refusals.CHAIN_TOO_LONG)
    return length


@final
class LayerUpload:
    """One layer on its way in: `upload` takes its bytes, `commit` makes it the image's layer.

    Nothing that is there changes before `commit`; `discard` leaves no trace.
    """

    def __init__(self, store: Store, settings: V1Settings, image_id: str) -> None:
        """Look at the image and open an upload.

        Raises:
            ApiError: 404 if no json came before; 409 if the image is complete.
        """
        self._store, self._settings = store, settings
        self._image = known(store, image_id)
        if self._image.complete and not self._image.contended:
            raise ApiError(*refusals.IMAGE_EXISTS)
        with store.reader(self._image.json) as reader:
            self._hash = payload_hash(reader.read())
        self.upload = store.upload(taps=(self._hash,))

    @property
    def needs_unpacking(self) -> bool:
        """Whether the commit has to read the layer again."""
        return self._image.announced.startswith(TARSUM)

    def commit(self) -> None:
        """Make the received bytes the image's layer, and complete it if its checksum was announced.

        Raises:
            ApiError: 409 if the image is complete by now, with other bytes; 400 if the announced checksum is
                not that of these bytes.
        """
        with self.upload as upload:
            image = self._place(upload.finish()) if upload.size else self._place_empty()
        if image.announced and not image.complete:
            self._prove(image)

    def discard(self) -> None:
        """Forget what came."""
        self.upload.discard()

    def _place_empty(self) -> Image:
        with self._store.upload() as upload:
            upload.write(EMPTY_LAYER)
            return self._place(upload.finish())

    def _place(self, staged: Staged) -> Image:
        checksum = payload_checksum(self._hash)  # the upload is finished, so the tap has seen every byte

        def edit(names: Names) -> Image:
            now = known(names, self._image.id)
            if now.complete:
                if now.contended and now.layer == staged.digest and now.checksum == checksum:
                    return now  # another engine was faster with the same bytes
                raise ApiError(*refusals.IMAGE_EXISTS)
            if now.json != self._image.json:
                raise ApiError(*refusals.JSON_REPLACED)
            names.keep(staged)
            after = replace(now, layer=staged.digest, layer_bytes=staged.size, checksum=checksum)
            names.put(after.name, after.record())
            return after

        return self._store.change(edit)

    def _prove(self, image: Image) -> None:
        """Hold a layer against the checksum that came with its json."""
        if not _matches(self._store, self._settings, image, image.announced):
            without = replace(image, layer=None, layer_bytes=0, checksum="")
            with suppress(_Overtaken):
                self._store.change(partial(_exchange, image, without))
            raise ApiError(*refusals.LAYER_MISMATCH)
        self._store.change(partial(_exchange, image, replace(image, complete=True)))


@dataclass(frozen=True, slots=True)
class Claim:
    """The headers of a checksum request; None where one was not sent."""

    payload: str | None
    tarsum: str | None

    @property
    def text(self) -> str:
        """The checksum that counts.

        A tarsum differs between archive readers, so beside a payload checksum it is not looked at.

        Raises:
            ApiError: 412 if there is none, 400 if it is empty.
        """
        text = self.payload if self.payload is not None else self.tarsum
        if text is None:
            raise ApiError(*refusals.PAYLOAD_NOT_SET)
        if not text.strip():
            raise ApiError(*refusals.CHECKSUM_EMPTY)
        return text.strip()

    @property
    def needs_unpacking(self) -> bool:
        """Whether the layer has to be read again to check it."""
        return self.payload is None and self.text.startswith(TARSUM)


def put_checksum(store: Store, settings: V1Settings, image_id: str, claim: Claim) -> None:
    """Complete an image whose json and layer have this checksum.

    Raises:
        ApiError: 404 unknown; 409 complete already; 400 no layer yet or another checksum, and the image goes
            on uploading.
    """
    text = claim.text
    image = known(store, image_id)
    if image.complete and not image.contended:
        raise ApiError(*refusals.CHECKSUM_FINAL)
    good = image.checksum == text if claim.payload is not None else _matches(store, settings, image, text)
    if image.layer is None or not good:
        raise ApiError(*(refusals.CHECKSUM_FINAL if image.complete else refusals.CHECKSUM_MISMATCH))
    if image.complete:
        return  # another engine was faster with the same bytes
    try:
        store.change(partial(_exchange, image, replace(image, complete=True)))
    except _Overtaken:
        raise ApiError(*refusals.CHECKSUM_MISMATCH) from None


class _Overtaken(Exception):
    """Another engine exchanged the bytes that were just checked."""


def _exchange(before: Image, after: Image, names: Names) -> None:
    """Replace an image, provided it still has the json and the layer that were looked at."""
    now = known(names, before.id)
    if (now.json, now.layer, now.checksum) != (before.json, before.layer, before.checksum):
        raise _Overtaken
    if not now.complete:
        names.put(after.name, replace(after, contended=now.contended).record())


def _matches(store: Store, settings: V1Settings, image: Image, text: str) -> bool:
    """Check a payload checksum or a tarsum against what is stored."""
    if image.layer is None:
        return False
    form = Form.of(text)
    if form is None:
        return text == image.checksum
    with store.reader(image.json) as reader:
        json = reader.read()
    limits = {"limit_bytes": settings.max_unpacked_bytes, "limit_entries": settings.max_entries}
    try:
        return tarsum(form, json, read_blob(store, image.layer), **limits) == text
    except Unreadable:
        return False
    except TooMuch:
        raise ApiError(*refusals.LAYER_TOO_MUCH) from None


def read_blob(store: Store, digest: Digest) -> Iterator[bytes]:
    """Yield a stored blob block by block."""
    with store.reader(digest) as reader:
        for start in range(0, reader.size, READ_BYTES):
            yield reader.read(start, min(start + READ_BYTES, reader.size))
