"""Blobs on their way in: which requests may go on with a session, and how a blob enters a repository.

Blocking; no HTTP. How a session is written down is known to `sessions`, what is held of it to the engine.
"""

from __future__ import annotations

import contextlib
import secrets
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

    def open(self, algorithm: str, random: Callable[[int], bytes] = secrets.token_bytes) -> str:
        """Open a session and return its id. Nothing is written: an abandoned one costs nothing."""
        number = int.from_bytes(random(sessions.NUMBER_BYTES), "big")
        key = self.store.read(keys.read).newest.secret
        return sessions.write(Session(number, int(self.now), algorithm), self.repository, key)

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

    def resume(self, text: str, chunk: Chunk | None) -> Arrival:
        """Go on with a session.

        Raises:
            NoSession: there is no such one, or no longer.
            OutOfStep: the chunk begins elsewhere; nothing was taken.
        """
        session = self._session(text)
        return self._resume(session, chunk, session.algorithm)

    def resume_to_close(self, text: str, chunk: Chunk | None, closing: Digest) -> Arrival | None:
        """Go on with a session to its end; None if it was closed as this very blob before.

        Raises:
            NoSession, OutOfStep: as for `resume`.
        """
        session = self._session(text)
        return None if self.is_closed_as(session, closing) else self._resume(session, chunk, closing.algorithm)

    def close(self, text: str, chunk: Chunk | None, closing: Digest, rest: bytes) -> None:
        """Go on with a session to its end, all of whose last bytes are here.

        Raises:
            NoSession, OutOfStep: as for `resume`.
            Mismatch: as for `Arrival.close`.
        """
        arrival = self.resume_to_close(text, chunk, closing)
        if arrival is not None:
            arrival.close(closing, rest)

    def put(self, closing: Digest, data: bytes) -> None:
        """Take a blob that is here.

        Raises:
            Mismatch: its bytes have another digest.
        """
        self.whole(closing).close(closing, data)

    def whole(self, closing: Digest) -> Arrival:
        """Begin a blob that comes in this one request."""
        return Arrival(self, self.store.upload(algorithm=closing.algorithm))

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

    def _resume(self, session: Session, chunk: Chunk | None, algorithm: str) -> Arrival:
        try:
            upload = self.store.resume(session.number, algorithm=algorithm)
        except Missing:
            raise NoSession from None
        if chunk is not None and chunk.start != upload.size:
            held = upload.size
            upload.discard()
            raise OutOfStep(held)
        return Arrival(self, upload, session)

    def _session(self, text: str) -> Session:
        ring = self.store.read(keys.read)
        session = sessions.read(text, self.repository, [key.secret for key in ring.keys], self.now)
        if session is None:
            raise NoSession
        return session


@final
class Arrival:
    """The bytes of one request on their way into an upload; for one thread at a time."""

    def __init__(self, uploads: Uploads, upload: Upload, session: Session | None = None) -> None:
        self.upload = upload
        self._uploads, self._session = uploads, session

    def suspend(self) -> int:
        """Make durable what came and leave the rest to other requests; return how many bytes are held.

        Raises:
            OutOfStep: another request was faster; nothing of this one stays.
            NoSession: another request finished or cancelled the upload.
        """
        with self._dropping():
            return self.upload.suspend()

    def close(self, closing: Digest, rest: bytes = b"") -> None:
        """Take the last bytes, prove the blob and show it in the repository: durable and visible on return.

        Raises:
            Mismatch: the bytes have another digest; the session is over, and its bytes are gone.
            OutOfStep, NoSession: as for `suspend`.
        """

        def edit(names: Names, staged: Staged) -> None:
            self._uploads.show(names, staged.digest, staged.size)

        with self._dropping():
            try:
                if rest:
                    self.upload.write(rest)
                self.upload.keep(closing, edit)
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
        with contextlib.suppress(CasError):
            if self._session is None:
                self.upload.discard()
            else:
                self.upload.suspend()

    def drop(self) -> None:
        """Take nothing more; what was safe before stays."""
        self.upload.discard()

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
