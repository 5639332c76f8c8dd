"""Blobs on their way in: which requests may go on with a session, and how a blob enters a repository.

Blocking; no HTTP. How a session is written down is known to `sessions`, what is held of it to the engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn, final

from api.access import keys
from api.content import repositories
from api.content.repositories import Access
from api.content.repository import Repository
from api.v2 import links, sessions
from api.v2.chunks import Chunk
from api.v2.sessions import Session
from cas import CasError, Digest, Mismatch, Missing, Names, Staged, Store, Superseded, Upload, UploadState


class NoSession(Exception):
    """The id is none of ours, of another repository, or too old; or its upload was finished or cancelled."""


class ClosedBefore(Exception):
    """The client repeats its last request, whose answer it never saw: the session was closed as this very blob."""


class OutOfStep(Exception):
    """The chunk does not begin where the upload ends, perhaps because another request went on with it."""

    def __init__(self, held: int) -> None:
        super().__init__(f"the upload holds {held} bytes; go on from there")
        self.held = held


@final
@dataclass(frozen=True, slots=True)
class Uploads:
    """Uploads into one repository.

    Attributes:
        store: the engine.
        repository: where blobs become visible.
        access: who may see the repository if a push makes it.
        now: the time, in Unix seconds.
    """

    store: Store
    repository: Repository
    access: Access
    now: float

    def held(self, text: str) -> int:
        """Return how many bytes of a session are safe.

        Raises:
            NoSession: there is no such one, or no longer.
        """
        return self.held_of(self._session(text))

    def cancel(self, text: str) -> None:
        """End a session and drop its bytes.

        Raises:
            NoSession: there is no such one, or no longer.
        """
        if not self.store.cancel(self._session(text).number):
            raise NoSession

    def resume(self, text: str, chunk: Chunk | None, closing: Digest | None = None) -> Arrival:
        """Go on with a session, to its end as a blob if there is one to close it as; once the arrival begins."""
        return Arrival(self, lambda: self._resume(text, chunk, closing))

    def close(self, text: str, chunk: Chunk | None, closing: Digest, rest: bytes) -> None:
        """Go on with a session to its end, all of whose last bytes are here; twice is once.

        Raises:
            NoSession, OutOfStep: as for `Arrival.begin`.
            Mismatch: as for `Arrival.close`.
        """
        with contextlib.suppress(ClosedBefore):
            self.resume(text, chunk, closing).close(closing, rest)

    def put(self, closing: Digest, data: bytes) -> None:
        """Take a blob that is here.

        Raises:
            Mismatch: its bytes have another digest.
        """
        self.whole(closing).close(closing, data)

    def whole(self, closing: Digest) -> Arrival:
        """Take a blob that comes in this one request."""
        return Arrival(self, lambda: (self.store.upload(algorithm=closing.algorithm), None))

    def show(self, names: Names, digest: Digest, size: int) -> None:
        """Make a blob visible in the repository, which is made if there is none."""
        repositories.ensure(names, self.repository, self.now, self.access)
        if links.is_stale(links.find(names, self.repository, digest), self.now):
            links.put(names, self.repository, digest, size, self.now)

    def held_of(self, session: Session) -> int:
        """Return how many bytes are safe; as `held`."""
        progress = self.store.progress(session.number)
        if progress is None:
            return 0
        if progress.state is not UploadState.OPEN:
            raise NoSession
        return progress.size

    def is_closed_as(self, session: Session, digest: Digest) -> bool:
        """Tell whether a client repeats its last request, whose answer it never saw."""
        progress = self.store.progress(session.number)
        if progress is None or progress.state is not UploadState.DONE or progress.digest != digest:
            return False
        return self.store.read(lambda reads: links.find(reads, self.repository, digest)) is not None

    def _resume(self, text: str, chunk: Chunk | None, closing: Digest | None) -> tuple[Upload, Session]:
        session = self._session(text)
        algorithm = session.algorithm if closing is None else closing.algorithm
        try:
            upload = self.store.resume(session.number, algorithm=algorithm)
        except Missing:
            if closing is not None and self.is_closed_as(session, closing):
                raise ClosedBefore from None
            raise NoSession from None
        if chunk is not None and chunk.start != upload.size:
            held = upload.size
            upload.discard()
            raise OutOfStep(held)
        return upload, session

    def _session(self, text: str) -> Session:
        ring = self.store.read(keys.read)
        session = sessions.read(text, self.repository, [key.secret for key in ring.keys], self.now)
        if session is None:
            raise NoSession
        return session


@final
class Arrival:
    """The bytes of one request on their way into an upload; for one thread at a time.

    It begins by itself when it is first used, in the thread that does so: of a small push that is one crossing less.
    """

    def __init__(self, uploads: Uploads, begin: Callable[[], tuple[Upload, Session | None]]) -> None:
        """Make one that begins as its maker says."""
        self._uploads, self._begin = uploads, begin
        self._upload: Upload | None = None
        self._session: Session | None = None

    def begin(self) -> Upload:
        """Return the upload, which is begun if it was not yet.

        Raises:
            NoSession: there is no such one, or no longer.
            OutOfStep: the chunk begins elsewhere; nothing was taken.
            ClosedBefore: the session was closed as this very blob before.
        """
        if self._upload is None:
            self._upload, self._session = self._begin()
        return self._upload

    def suspend(self) -> int:
        """Make durable what came and leave the rest to other requests; return how many bytes are held.

        Raises:
            OutOfStep: another request was faster; nothing of this one stays.
            NoSession: another request finished or cancelled the upload.
        """
        upload = self.begin()
        with self._dropping():
            return upload.suspend()

    def close(self, closing: Digest, rest: bytes = b"") -> None:
        """Take the last bytes, prove the blob and show it in the repository: durable and visible on return.

        Raises:
            Mismatch: the bytes have another digest; the session is over, and its bytes are gone.
            OutOfStep, NoSession: as for `suspend`.
        """

        def edit(names: Names, staged: Staged) -> None:
            self._uploads.show(names, staged.digest, staged.size)

        upload = self.begin()
        with self._dropping():
            try:
                if rest:
                    upload.write(rest)
                upload.keep(closing, edit)
            except Mismatch:
                if self._session is not None:
                    self._uploads.store.cancel(self._session.number)
                raise
            except Superseded:
                if self._session is None or not self._uploads.is_closed_as(self._session, closing):
                    raise
                # else the same request was faster on another connection, and its answer is good for this one too

    def save(self) -> None:
        """Keep what came of a body that broke off, as far as that can be."""
        if self._upload is not None:
            with contextlib.suppress(CasError):
                if self._session is None:
                    self._upload.discard()
                else:
                    self._upload.suspend()

    def drop(self) -> None:
        """Take nothing more; what was safe before stays."""
        if self._upload is not None:
            self._upload.discard()

    def give_way(self) -> NoReturn:
        """Take nothing more, because another request went on with the session.

        Raises:
            OutOfStep, NoSession: as for `suspend`.
        """
        self.drop()
        assert self._session is not None, "nobody can go on with an upload of one request"
        raise OutOfStep(self._uploads.held_of(self._session)) from None

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        """Drop the upload on any error; one that came too late says how far the session is."""
        try:
            yield
        except Superseded:
            self.give_way()
        except BaseException:
            self.drop()
            raise
