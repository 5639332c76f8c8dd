"""How an image comes to be: json, layer, checksum. The states of Registry v1 as changes to the store.

    unknown --put_json--> uploading --LayerUpload--> uploading, layer there --put_checksum--> complete

A complete image that damage took bytes of, a lost one, stays what it is, and is pushed beside it in the same steps, if
with the same bytes: as soon as they are stored they are back for all that hold them. Every change looks at the image
again inside the store's transaction, because two engines may push one image at the same time. What completes it is a
checksum over exactly the bytes that are stored. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, final

from api.content import repositories
from api.content.repositories import Access
from api.content.repository import Repository
from api.errors import ApiError
from api.v1 import homes, parsing, refusals
from api.v1.homes import EVERYWHERE, Sight
from api.v1.image import EMPTY_LAYER, Image, find_complete, find_upload
from api.v1.settings import V1Settings
from api.v1.tarsum import TARSUM, Form, payload_checksum, payload_hash, tarsum
from api.v1.unpack import TooMuch, Unreadable
from cas import Digest, Names, Reads, Staged, Store, Upload

READ_BYTES: Final = 1 << 20  # how much of a stored layer is looked at in one go


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is pushed to, and when.

    Attributes:
        home: see `homes`.
        expired: when the pusher's token expired, if it did. Then only what began before is let through.
        makes: who may pull the repository that is made here if need be; None if an index route has made it.
        sees: from which repositories the pusher may pull: what he borrowed from others is not seen from his home.
    """

    store: Store
    settings: V1Settings
    home: str = EVERYWHERE
    now: float = 0.0
    expired: int | None = None
    makes: Access | None = None
    sees: Sight = field(kw_only=True)

    def prepare(self, names: Names) -> None:
        """See to it that the home is there, if it is a repository.

        Raises:
            ApiError: 404.
        """
        if self.makes is not None:
            repositories.ensure(names, Repository.of(self.home), self.now, self.makes)
        homes.check(names, self.home)

    def find(self, reads: Reads, image_id: str) -> Image | None:
        """Look an image up as it is seen from here."""
        return homes.find(reads, self.home, image_id, self.sees)

    def known(self, reads: Reads, image_id: str) -> Image:
        """Look up an image that must at least be uploading here, as whoever pushes it goes on with it.

        Raises:
            ApiError: 404.
        """
        return homes.pushed(reads, self.home, image_id, self.sees)

    def begun(self, image_id: str) -> Image:
        """Look up an image that must at least be uploading here, with a token that is good for it.

        Raises:
            ApiError: 404, 401.
        """

        def look(reads: Reads) -> Image:
            image = self.known(reads, image_id)
            self.check_time(reads, image_id)
            return image

        return self.store.read(look)

    def check_time(self, reads: Reads, *image_ids: str | None) -> None:
        """Raise unless the token is good, or one of these images was begun while it was.

        Raises:
            ApiError: 401.
        """
        if self.expired is not None and not any(
            homes.in_time(reads, self.home, each, self.expired, self.now) for each in image_ids if each is not None
        ):
            raise ApiError(*refusals.NEEDS_TOKEN, headers=refusals.TOKEN_CHALLENGE)


def put_json(place: Place, image_id: str, body: bytes, announced: str) -> None:
    """Begin an image, or begin it anew while it is not complete, or lost.

    Raises:
        ApiError: 400 for json that is no image's, an unknown parent, or an impossible ancestry; 409 if the
            image is complete, and not lost, or was of other json.
    """
    parent = parsing.image_json(body, image_id)
    digest = Digest.of(body)
    begun = partial(_begun, place=place, json=digest, json_bytes=len(body), parent=parent, announced=announced)

    def look(reads: Reads) -> None:
        place.check_time(reads, image_id, parent)
        begun(reads, image_id)

    place.store.read(look)  # refuses the common cases before anything is written
    with place.store.upload() as upload:
        upload.write(body)
        staged = upload.finish(digest)

        def edit(names: Names) -> None:
            place.prepare(names)
            image = begun(names, image_id)
            names.keep(staged)
            _get_on(names, place, image)

        place.store.change(edit)


def _begun(
    names: Reads,
    image_id: str,
    *,
    place: Place,
    json: Digest,
    json_bytes: int,
    parent: str | None,
    announced: str,
) -> Image:
    """Decide what an image is after its json came (again)."""
    before = place.find(names, image_id)
    chain = _chain(names, place, image_id, parent, may_loop=before is not None)
    fresh = Image(
        id=image_id,
        complete=False,
        json=json,
        json_bytes=json_bytes,
        parent=parent,
        chain=chain,
        announced=announced,
        began=int(place.now) if place.expired is None else place.expired,  # what follows is as old as what it follows
        home=place.home,
    )
    if before is not None and before.complete:
        if before.json != json or not before.is_lost(names):
            raise ApiError(*refusals.IMAGE_EXISTS)
        before = find_upload(names, place.home, image_id)
    if before is None:
        return fresh
    if before.json != json or before.is_lost(names):
        return replace(fresh, contended=True, began=before.began)
    # Another engine pushes the same image. The layer it has brought already is as good for this json.
    return replace(before, chain=chain, announced=announced, contended=True)


def _get_on(names: Names, place: Place, image: Image) -> None:
    """Write down what a push has brought of an image, which needs its parent the more: see `garbage`."""
    names.put(image.name, replace(image, at=place.now).record())
    if image.parent is not None:
        homes.need(names, place.home, image.parent)


def _chain(names: Reads, place: Place, image_id: str, parent: str | None, *, may_loop: bool) -> int:
    """Return the length of an ancestry; refuse one that is too long, broken, or comes back to its top."""
    length, above = 1, parent
    while above is not None:
        image = place.find(names, above)
        if image is None:
            raise ApiError(*refusals.NO_SUCH_PARENT)
        if above == image_id:
            raise ApiError(*refusals.OWN_ANCESTOR)
        # Nobody can descend from an image that did not exist, so what the parent remembers is enough then.
        length, above = (length + 1, image.parent) if may_loop else (length + image.chain, None)
        if length > place.settings.max_chain:
            raise ApiError(*refusals.CHAIN_TOO_LONG)
    return length


@final
class LayerUpload:
    """One layer on its way in: `upload` takes its bytes, `commit` makes it the image's layer.

    Nothing that is there changes before `commit`; `discard` leaves no trace.
    """

    def __init__(self, place: Place, image_id: str) -> None:
        """Look at the image and open an upload.

        Raises:
            ApiError: 404 if no json came before; 409 if the image is complete.
        """
        self._at, self._store = place, place.store
        self._image = place.begun(image_id)
        if self._image.complete and not self._image.contended:
            raise ApiError(*refusals.IMAGE_EXISTS)
        with place.store.reader(self._image.json) as reader:
            self._hash = payload_hash(reader.read())
        self.upload = place.store.upload(taps=(self._hash,))

    @property
    def needs_unpacking(self) -> bool:
        """Whether the commit has to read the layer again."""
        return self._image.announced.startswith(TARSUM)

    def commit(self, now: float | None = None) -> None:
        """Make the received bytes the image's layer, and complete it if its checksum was announced.

        Args:
            now: when the last of them came, in Unix seconds, if that is not when the upload was opened.

        Raises:
            ApiError: 409 if the image is complete by now, with other bytes, or another engine replaced what was to be
                completed; 400 if the announced checksum is not that of these bytes.
        """
        if now is not None:
            self._at = replace(self._at, now=now)
        with self.upload as upload:
            image = self._place(upload) if upload.size else self._place_empty()
        if image.announced and not image.complete:
            self._prove(image)

    def discard(self) -> None:
        """Forget what came."""
        self.upload.discard()

    def _place_empty(self) -> Image:
        with self._store.upload() as upload:
            upload.write(EMPTY_LAYER)
            return self._place(upload)

    def _place(self, upload: Upload) -> Image:
        def edit(names: Names, staged: Staged) -> Image:
            checksum = payload_checksum(self._hash)  # every byte is proven, so the tap has seen them all
            now = self._at.known(names, self._image.id)
            if now.complete:
                if now.contended and now.layer == staged.digest and now.checksum == checksum:
                    return now  # another engine was faster with the same bytes
                raise ApiError(*refusals.IMAGE_EXISTS)
            if now.json != self._image.json:
                raise ApiError(*refusals.IMAGE_REPLACED)
            after = replace(now, layer=staged.digest, layer_bytes=staged.size, checksum=checksum)
            there = self._at.find(names, self._image.id)
            if there is not None and there.complete and not there.has_bytes_of(after):
                raise ApiError(*refusals.IMAGE_EXISTS)  # it was lost, and these are not the bytes that were
            _get_on(names, self._at, after)
            return after

        return upload.keep(None, edit)

    def _prove(self, image: Image) -> None:
        """Hold a layer against the checksum that came with its json."""
        if not _matches(self._at, image, image.announced):
            without = replace(image, layer=None, layer_bytes=0, checksum="")
            with suppress(_Overtaken):
                self._store.change(partial(_exchange, self._at, image, without))
            raise ApiError(*refusals.LAYER_MISMATCH)
        try:
            self._store.change(partial(_complete, self._at, image))
        except _Overtaken:
            raise ApiError(*refusals.IMAGE_REPLACED) from None


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


def put_checksum(place: Place, image_id: str, claim: Claim) -> None:
    """Complete an image whose json and layer have this checksum.

    Raises:
        ApiError: 404 unknown; 409 complete already; 400 no layer yet or another checksum, and the image goes
            on uploading.
    """
    text = claim.text
    image = place.begun(image_id)
    if image.complete and not image.contended:
        raise ApiError(*refusals.CHECKSUM_FINAL)
    good = image.checksum == text if claim.payload is not None else _matches(place, image, text)
    if image.layer is None or not good:
        raise ApiError(*(refusals.CHECKSUM_FINAL if image.complete else refusals.CHECKSUM_MISMATCH))
    if image.complete:
        return  # another engine was faster with the same bytes
    try:
        place.store.change(partial(_complete, place, image))
    except _Overtaken:
        raise ApiError(*refusals.CHECKSUM_MISMATCH) from None


class _Overtaken(Exception):
    """Another engine exchanged the bytes that were just checked."""


def _current(place: Place, before: Image, names: Names) -> Image:
    """Return an image as it is now, provided it still has the bytes that were looked at."""
    now = place.known(names, before.id)
    if not now.has_bytes_of(before):
        raise _Overtaken
    return now


def _exchange(place: Place, before: Image, after: Image, names: Names) -> None:
    """Replace an image that is being uploaded."""
    now = _current(place, before, names)
    if not now.complete:
        names.put(after.name, replace(after, contended=now.contended).record())


def _complete(place: Place, before: Image, names: Names) -> None:
    """Complete an image, or find that the same one came into another home before."""
    now = _current(place, before, names)
    if now.complete:
        return
    there = find_complete(names, now.id)
    if there is not None and not there.has_bytes_of(now):
        raise ApiError(*refusals.CHECKSUM_FINAL)  # one id, two images: the first stays
    done = replace(now, complete=True)
    if done.is_lost(names):
        raise ApiError(*refusals.CHECKSUM_MISMATCH)  # since it came: who begins anew is let through
    if there is None or now.contended:
        _get_on(names, place, done)
    names.delete(now.name)
    homes.prove(names, place.home, done, place.now)


def _matches(place: Place, image: Image, text: str) -> bool:
    """Check a payload checksum or a tarsum against what is stored."""
    if image.layer is None:
        return False
    form = Form.of(text)
    if form is None:
        return text == image.checksum
    with place.store.reader(image.json) as reader:
        json = reader.read()
    limits = {"limit_bytes": place.settings.max_unpacked_bytes, "limit_entries": place.settings.max_entries}
    try:
        return tarsum(form, json, read_blob(place.store, image.layer), **limits) == text
    except Unreadable:
        return False
    except TooMuch:
        raise ApiError(*refusals.LAYER_TOO_MUCH) from None


def read_blob(store: Store, digest: Digest) -> Iterator[bytes]:
    """Yield a stored blob block by block."""
    with store.reader(digest) as reader:
        for start in range(0, reader.size, READ_BYTES):
            yield reader.read(start, min(start + READ_BYTES, reader.size))
