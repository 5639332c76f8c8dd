"""The storage folder of the old registry, written in Python, as its file driver lays it out.

    images/ID/{json,layer}                   an image; `_inprogress` beside them: its push was never finished
    images/ID/_checksum                      JSON list of what its bytes were proven by, or one bare text
    repositories/NAMESPACE/NAME/
        tag_TAG                              the id of an image
        _index_images                        JSON list of the images of a push: {"id", "checksum"?, "Tag"?}
        _private                             there if not everybody may pull

Names are quoted as in URLs. An image comes after its parent, and only if a repository has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, final
from urllib.parse import unquote

from api import strict
from api.content import tags
from api.content.repositories import Access
from api.content.repository import Repository
from api.errors import ApiError
from api.porting.errors import Unusable
from api.porting.folder import Folder
from api.porting.incoming import TRIES, finish_removal, gone, set_tag
from api.porting.report import Report, reporting
from api.porting.terms import Terms
from api.v1 import homes, images, names, parsing, refusals
from api.v1 import repositories as lists
from api.v1.image import find_complete
from api.v1.images import Claim, LayerUpload, Place
from api.v1.tarsum import TARSUM
from cas import Digest, Mismatch, Names, Reads, Store

_IMAGES: Final = "images"
_REPOSITORIES: Final = "repositories"
_TAG: Final = "tag_"
_MOST_TAG_BYTES: Final = 256
_MOST_CHECKSUM_BYTES: Final = 16 << 10
_REFUSED: Final = 400
# What a push is told when a collection took its image, or what that stands on.
_TAKEN: Final = frozenset(sentence for _, sentence in (refusals.IMAGE_NOT_FOUND, refusals.NO_SUCH_PARENT))


@final
@dataclass(frozen=True, slots=True)
class _Source:
    """One repository of the folder."""

    path: str
    repository: Repository
    tags: tuple[str, ...]


@final
@dataclass(slots=True)
class _Home:
    """The repository that is worked on: from where its images are seen, and which were left out of it, and why."""

    place: Place
    left: dict[str, str] = field(default_factory=dict)


def check(folder: Folder) -> None:
    """Refuse a folder of another kind.

    Raises:
        NotThatKind: it is one.
    """
    for needed in (_IMAGES, _REPOSITORIES):
        folder.needs(needed, "name the folder that the old registry's configuration calls storage_path")


def read(folder: Folder, store: Store, terms: Terms, report: Report) -> None:
    """Import all repositories.

    Raises:
        NotThatKind: there are none.
    """
    check(folder)
    sources = list(_sources(folder, report))
    report.total = sum(len(source.tags) for source in sources)
    old = _Old(folder, store, terms, report)
    for source in sources:
        with reporting(report, source.repository.short):
            old.repository(source)


def _sources(folder: Folder, report: Report) -> Iterator[_Source]:
    for namespace in folder.names(_REPOSITORIES):
        with reporting(report, namespace):
            for part in folder.names(f"{_REPOSITORIES}/{namespace}"):
                path = f"{_REPOSITORIES}/{namespace}/{part}"
                with reporting(report, path):
                    found = [each for each in folder.names(path) if each.startswith(_TAG)]
                    yield _Source(path, _named(f"{namespace}/{part}"), tuple(found))


def _named(quoted: str) -> Repository:
    try:
        return names.repository(unquote(unquote(quoted)))  # a part with a slash was quoted twice
    except ApiError as error:
        raise Unusable(error) from None


@final
class _Old:
    """One import; remembers which images of the store have the bytes of this folder."""

    def __init__(self, folder: Folder, store: Store, terms: Terms, report: Report) -> None:
        self._folder, self._store, self._terms, self._report = folder, store, terms, report
        self._proven: set[str] = set()
        self._met: set[str] = set()  # images that were there before, each counted once
        self._whole: set[str] = set()  # images that are there, and of which nothing is lost, nor of their ancestors

    def repository(self, source: _Source) -> None:
        """Import one: its list, its images, its tags."""
        repository, now = source.repository, self._terms.clock()
        self._report.counts.repositories += 1
        finish_removal(self._store, repository)
        access = Access.PRIVATE if self._folder.has(f"{source.path}/_private") else self._terms.access
        listed = self._listed(source)
        lists.add_images(self._store, repository, listed, now, access)
        home = _Home(Place(self._store, self._terms.v1, str(repository), now, makes=access, sees=_everywhere))
        for image_id in listed:
            with reporting(self._report, f"{repository.short}: image {image_id}"):
                if self._folder.has(f"{_IMAGES}/{image_id}"):  # a list may name what was pushed elsewhere
                    self._image(home, source, image_id)
        for name in source.tags:
            tag = unquote(name.removeprefix(_TAG))
            self._report.begin(f"{repository.short}:{tag}")
            with reporting(self._report, self._report.now):
                self._tag(home, source, name, tag)
            self._report.step()

    def _listed(self, source: _Source) -> dict[str, str | None]:
        path = f"{source.path}/_index_images"
        if self._folder.has(path):
            with reporting(self._report, path):
                try:
                    return parsing.image_list(self._folder.read(path, self._terms.max_json_bytes))
                except ApiError as error:
                    raise Unusable(error) from None
        return {}

    def _tag(self, home: _Home, source: _Source, name: str, tag: str) -> None:
        text = self._folder.read(f"{source.path}/{name}", _MOST_TAG_BYTES).decode(errors="replace").strip()
        if not names.is_tag(tag):
            raise Unusable("this is no tag")
        if not names.is_image_id(text):
            raise Unusable("it says no image id")
        self._image(home, source, text)

        def target(reads: Reads) -> tags.Image:
            found = home.place.find(reads, text)
            if found is None or not found.complete:
                raise Unusable(f"its image {text} was left out")
            return tags.Image(text)

        if set_tag(self._store, source.repository, tag, target, {"last_update": int(home.place.now)}):
            self._report.counts.tags += 1

    def _image(self, home: _Home, source: _Source, image_id: str) -> None:
        """See to it that an image and its ancestors are there, the oldest first; tell what is left out."""
        for tries_left in reversed(range(TRIES)):
            for each in reversed(self._line(home, source, image_id)):
                try:
                    self._take(home.place, each)
                except (Unusable, ApiError) as error:
                    was_taken = str(error) in _TAKEN
                    if was_taken and tries_left:
                        break
                    self._leave(home, source, each, str(gone("it, or its parent,") if was_taken else error))
                    self._leave_above(home, source, image_id, each)
                    return
            else:
                return

    def _line(self, home: _Home, source: _Source, image_id: str) -> list[str]:
        """Return an image and its ancestors, as far as they are not there; nothing if one of them was left out."""
        line: list[str] = []
        above: str | None = image_id
        while above is not None and not self._is_there(home.place, above):
            if above in home.left:
                self._leave_above(home, source, image_id, above)
                return []
            line.append(above)
            if len(line) > self._terms.v1.max_chain:
                self._leave(home, source, image_id, f"it has more than {self._terms.v1.max_chain} ancestors")
                return []
            try:
                above = parsing.image_json(self._json(above), above)
            except (Unusable, ApiError) as error:
                self._leave(home, source, line[-1], str(error))
                self._leave_above(home, source, image_id, line[-1])
                return []
        if not line and image_id not in self._proven and image_id not in self._met:
            self._met.add(image_id)
            self._report.counts.unchanged += 1
        self._heal(home, source, above)
        return line

    def _heal(self, home: _Home, source: _Source, image_id: str | None) -> None:
        """Bring back what damage took of an image that is there, and of its ancestors; name what cannot be had."""
        while image_id is not None and image_id not in self._whole:
            self._whole.add(image_id)
            image = self._store.read(lambda reads, each=image_id: home.place.find(reads, each))  # type: ignore[misc]
            if image is None:
                return
            bodies = {"json": image.json, "layer": image.layer}
            for name, digest in bodies.items():
                if digest is not None and self._store.read(lambda reads, digest=digest: reads.stat(digest)) is None:  # type: ignore[misc]
                    with reporting(self._report, f"{source.repository.short}: image {image_id}"):
                        self._bring_back(f"{_IMAGES}/{image_id}/{name}", name, digest)
            image_id = image.parent

    def _bring_back(self, path: str, name: str, digest: Digest) -> None:
        """Store the bytes of a file again that an image holds already.

        Raises:
            Unusable: they are not there.
        """
        try:
            with self._folder.open(path) as file, self._store.upload(algorithm=digest.algorithm) as upload:
                for block in file.blocks():
                    upload.write(block)
                    self._report.block(len(block))
                upload.keep(digest, lambda _names, _staged: None)
        except (Unusable, Mismatch) as error:
            raise Unusable(f"its {name} {digest} is lost here, and cannot be had from {path}: {error}") from None
        self._report.counts.blobs += 1

    def _leave(self, home: _Home, source: _Source, image_id: str, why: str) -> None:
        if image_id not in home.left:
            home.left[image_id] = why
            self._report.skip(f"{source.repository.short}: image {image_id}", why)

    def _leave_above(self, home: _Home, source: _Source, image_id: str, ancestor: str) -> None:
        if image_id != ancestor:
            self._leave(home, source, image_id, f"its ancestor {ancestor} was left out")

    def _is_there(self, place: Place, image_id: str) -> bool:
        found = self._store.read(lambda reads: place.find(reads, image_id))
        return found is not None and found.complete

    def _take(self, place: Place, image_id: str) -> None:
        """Make an image be seen from a repository; its bytes are read once, however many have it.

        Raises:
            Unusable, ApiError: it cannot be.
        """
        if image_id in self._proven and self._show(place, image_id):
            return
        if self._folder.has(f"{_IMAGES}/{image_id}/_inprogress"):
            raise Unusable("its push was never finished")
        checksums = self._checksums(image_id)
        images.put_json(place, image_id, self._json(image_id), "")
        upload = LayerUpload(place, image_id)
        try:
            with self._folder.open(f"{_IMAGES}/{image_id}/layer") as file:
                for block in file.blocks():
                    upload.upload.write(block)
                    self._report.block(len(block))
            upload.commit()
        finally:
            upload.discard()
        self._prove(place, image_id, checksums)
        self._proven.add(image_id)
        self._report.counts.images += 1
        self._report.counts.blobs += 1

    def _show(self, place: Place, image_id: str) -> bool:
        def edit(changes: Names) -> bool:
            found = find_complete(changes, image_id)
            if found is not None:
                place.prepare(changes)
                homes.prove(changes, place.home, found, place.now)
            return found is not None

        return self._store.change(edit)

    def _prove(self, place: Place, image_id: str, checksums: list[str]) -> None:
        """Complete an image by any checksum that was kept for it; by its own where none was."""
        if not checksums:
            image = self._store.read(lambda reads: place.known(reads, image_id))
            checksums = [image.checksum]
        for text in sorted(checksums, key=lambda each: each.startswith(TARSUM)):  # those need no unpacking
            claim = Claim(None, text) if text.startswith(TARSUM) else Claim(text, None)
            try:
                images.put_checksum(place, image_id, claim)
            except ApiError as error:
                if error.status != _REFUSED:
                    raise
            else:
                return
        raise Unusable("its json or its layer is damaged: together they have none of the checksums kept for them")

    def _checksums(self, image_id: str) -> list[str]:
        path = f"{_IMAGES}/{image_id}/_checksum"
        if not self._folder.has(path):
            return []
        text = self._folder.read(path, _MOST_CHECKSUM_BYTES).decode(errors="replace").strip()
        try:
            content = strict.load(text)
        except ValueError:
            content = text
        found = content if isinstance(content, list) else [content]
        return [each.strip() for each in found if isinstance(each, str) and each.strip()]

    def _json(self, image_id: str) -> bytes:
        return self._folder.read(f"{_IMAGES}/{image_id}/json", self._terms.max_json_bytes)


def _everywhere(_reads: Reads, _repository: Repository) -> bool:
    return True
