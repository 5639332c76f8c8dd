"""What a tag on a manifest means to Registry v1: one image's configuration and layers, found and checked.

Of an index it is the image for one platform. Blocking; no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from api import strict
from api.bridge.to_v1 import Blob, NoImage, NotNow
from api.content import tags
from api.content.repository import Repository
from api.v2 import links, manifest
from api.v2.document import DOCKER_MANIFEST, INDEXES
from api.v2.manifest import Manifest
from cas import Damaged, Digest, InvalidDigest, Reads, Store

_CONFIGS: Final = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
# What engines 1.10 to 1.12 call a configuration that they find in a registry already: whatever its answer to HEAD said
# of the blob. Docker's own engines take all of these for images.
_CONFIGS_FOUND: Final = frozenset({"application/octet-stream", "application/json", "text/html"})
_LAYERS: Final = frozenset(
    {
        *(f"application/vnd.oci.image.layer.v1.tar{form}" for form in ("", "+gzip", "+zstd")),
        *(f"application/vnd.oci.image.layer.nondistributable.v1.tar{form}" for form in ("", "+gzip", "+zstd")),
        *(f"application/vnd.docker.image.rootfs.diff.tar{form}" for form in ("", ".gzip", ".zstd")),
        *(f"application/vnd.docker.image.rootfs.foreign.diff.tar{form}" for form in ("", ".gzip", ".zstd")),
    }
)
_MOST_CONFIG_BYTES: Final = 4 << 20  # as much as clients pull


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image's configuration, byte for byte, and its layers, base first, as they were pushed."""

    config: bytes
    layers: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image is made for; without a variant any will do."""

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def of(cls, text: str) -> Platform:
        """Read `os/architecture[/variant]`."""
        system, _, rest = text.partition("/")
        architecture, _, variant = rest.partition("/")
        return cls(system, architecture, variant or None)

    def fits(self, told: object) -> bool:
        """Tell whether this is what a member of an index says it is for."""
        if not isinstance(told, dict) or (told.get("os"), told.get("architecture")) != (self.os, self.architecture):
            return False
        return self.variant is None or told.get("variant") == self.variant


def read(store: Store, repository: Repository, target: tags.Manifest, platform: Platform) -> Pushed:
    """Read what a tag's manifest leads to.

    Raises:
        NoImage: that is no image which Registry v1 could serve whole.
        Damaged: it cannot be read.
    """
    config, layers = _named(partial(_bytes_of, store, repository), target, platform)

    def look(reads: Reads) -> list[Blob]:
        return [_stored(reads, repository, each) for each in (config, *layers)]

    found = store.read(look)
    if found[0].size > _MOST_CONFIG_BYTES:
        raise NoImage(f"its configuration has more than {_MOST_CONFIG_BYTES} bytes")
    with store.reader(config) as reader:
        return Pushed(bytes(reader.read()), tuple(found[1:]))


def is_none(reads: Reads, repository: Repository, target: tags.Manifest, platform: Platform) -> bool:
    """Tell whether what a tag points to is no image, and never will be one, by what small manifests say.

    JSON of strangers is read here without waiting for anybody: within a transaction that must not be.
    """
    try:
        _named(partial(_row_of, reads, repository), target, platform)
    except (NotNow, Damaged):  # of damage whoever asks for this tag is told
        return False
    except NoImage:
        return True
    return False


def _named(
    body_of: Callable[[Digest], bytes], target: tags.Manifest, platform: Platform
) -> tuple[Digest, list[Digest]]:
    """Return the configuration and the layers that a manifest names."""
    content = _content(body_of, target.digest)
    if target.type in INDEXES:
        content = _content(body_of, _for(platform, content))
    configs = _CONFIGS | _CONFIGS_FOUND if content.get("mediaType") == DOCKER_MANIFEST else _CONFIGS
    config = _described(content.get("config"), configs, "configuration")
    return config, [_described(each, _LAYERS, "layer") for each in content.get("layers") or ()]


def _bytes_of(store: Store, repository: Repository, digest: Digest) -> bytes:
    found = store.read(lambda reads: _found(reads, repository, digest))
    if found.blob is None:
        return found.body
    with store.reader(found.blob) as reader:
        return bytes(reader.read())


def _row_of(reads: Reads, repository: Repository, digest: Digest) -> bytes:
    found = _found(reads, repository, digest)
    if found.blob is not None:
        raise NotNow(f"its manifest {digest} is too large for a row")
    return found.body


def _found(reads: Reads, repository: Repository, digest: Digest) -> Manifest:
    found = manifest.find(reads, repository, digest)
    if found is None:
        raise NotNow(f"its manifest {digest} is not here")
    return found


def _content(body_of: Callable[[Digest], bytes], digest: Digest) -> Mapping[str, Any]:
    try:
        content: Mapping[str, Any] = strict.load(body_of(digest))
    except ValueError as error:  # others were checked less when it was pushed
        raise NoImage(f"its manifest {digest} cannot be read: {error}") from None
    return content


def _for(platform: Platform, index: Mapping[str, Any]) -> Digest:
    for child in index.get("manifests") or ():
        if platform.fits(child.get("platform")) and child.get("mediaType") not in INDEXES:
            return Digest.parse(child["digest"])
    raise NoImage("its index has no image for the platform that v1 clients are given")


def _described(told: object, types: frozenset[str], what: str) -> Digest:
    if not isinstance(told, dict) or told.get("mediaType") not in types:
        raise NoImage(f"its {what} is not that of an image")
    try:
        return Digest.parse(told["digest"])
    except InvalidDigest:
        raise NoImage(f"its {what} is not stored here") from None


def _stored(reads: Reads, repository: Repository, digest: Digest) -> Blob:
    """Look a blob up as its repository shows it; what lies elsewhere is not shown."""
    link, blob = links.find(reads, repository, digest), reads.stat(digest)
    if link is None or blob is None:
        raise NotNow(f"{digest} is not in its repository")
    return Blob(digest, blob.size)
