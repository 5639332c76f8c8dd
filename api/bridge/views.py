"""Views of tags, for both protocols: who asks waits for a turn, and the work is done in a thread.

Of images made for v1 a few at once in each worker, since most take milliseconds; of manifests as many as layers may be
unpacked at once. Knows whose turn it is, and how to stop what would take minutes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final, final

from api.bridge.asked import Asked
from api.bridge.images import image_of, is_refused
from api.bridge.layers import Layers
from api.bridge.manifests import manifest_of
from api.bridge.pushed import Platform
from api.bridge.refused import Refused
from api.content import tags
from api.content.repository import Repository
from api.threads import Run
from api.v1.settings import V1Settings
from cas import Busy, Reads, Store

_IMAGES_AT_ONCE: Final = 8


@final
class Bridge:
    """The views of one worker."""

    def __init__(self, store: Store, settings: V1Settings, run: Run, clock: Callable[[], float]) -> None:
        self._store, self._settings, self._run, self._clock = store, settings, run, clock
        self._stopped = threading.Event()
        self._inside = Layers(store, settings.max_unpacked_bytes, self._check, settings.unpackers)
        self._platform, self._refused = Platform.of(settings.platform), Refused()
        self._parsing = threading.Lock()
        self._images = asyncio.Semaphore(_IMAGES_AT_ONCE)
        self._manifests = asyncio.Semaphore(settings.unpackers)

    async def image(self, repository: Repository, tag: str) -> tags.Image | None:
        """See `Views`."""
        async with self._images:
            return await self._run(image_of, self._asked(repository, tag))

    def has_no_image(self, reads: Reads, repository: Repository, tag: tags.Tag) -> bool:
        """See `Views`."""
        return is_refused(reads, self._refused, repository, tag, self._platform)

    async def manifest(self, repository: Repository, tag: str) -> tags.Manifest | None:
        """See `Views`."""
        async with self._manifests:
            return await self._run(manifest_of, self._asked(repository, tag))

    def stop(self) -> None:
        """End what is under way; nothing of it stays."""
        self._stopped.set()

    def _asked(self, repository: Repository, tag: str) -> Asked:
        now = self._clock()
        return Asked(self._store, self._settings, self._inside, repository, tag, now, self._refused, self._parsing)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Busy("the server is being stopped; try again in a moment")
