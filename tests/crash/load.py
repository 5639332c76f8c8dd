"""Clients of the campaign: each pushes, pulls and deletes in repositories of its own, and notes what it was promised.

They share content, so that their bytes meet in the store, and nothing else. Whatever ends a request without an answer
leaves a doubt on the shelf; an answer that no server may give ends the round.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from tests import v1client
from tests.crash.shelf import MANIFEST, Doubts, Image, digest_of
from tests.crash.tally import WORK, Tally
from tests.support.engine import KIB, noise, prose

CUT = (OSError, http.client.HTTPException)  # no answer, or half of one
REFUSALS = {429, 503, 507}  # not now; and then it has not happened
_SHARED = [noise(90 * KIB + 70 * KIB * n, 500 + n) for n in range(4)] + [prose(300 * KIB, 500 + n) for n in range(3)]
_TAGS = ("a", "b", "c")
_PIECE = 48 * KIB
_TIMEOUT_S = 60.0
_PAST = 60  # answers that are told of when a promise is broken
_EXPIRED = 401  # the clock jumps by days, and an old engine asks for one token a push


class Refused(Exception):
    """The server said not now, or that it needs something again."""


@dataclass(frozen=True)
class Answer:
    """One answer, whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Arena:
    """Where the server is at the moment, and how much has been done there."""

    def __init__(self, tally: Tally) -> None:
        self._changed = threading.Condition()
        self._address: tuple[str, int] | None = None
        self._done = self._at_work = 0
        self._resting = False
        self.tally = tally
        self.over = False
        self.failure: BaseException | None = None

    def move(self, address: tuple[str, int] | None) -> None:
        """A server answers there from now on; None while there is none."""
        with self._changed:
            self._address = address
            self._changed.notify_all()

    def end(self) -> None:
        """Let all clients end after what they are at."""
        with self._changed:
            self.over = True
            self._changed.notify_all()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Do something as a client, unless all are to rest."""
        with self._changed:
            self._changed.wait_for(lambda: not self._resting)
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Let all clients rest, once they are done with what they are at."""
        with self._changed:
            self._resting = True
            assert self._changed.wait_for(lambda: not self._at_work, 3 * _TIMEOUT_S), "a client waits for ever"
        try:
            yield
        finally:
            with self._changed:
                self._resting = False
                self._changed.notify_all()

    def address(self) -> tuple[str, int]:
        """Wait for a server."""
        with self._changed:
            self._changed.wait_for(lambda: self._address is not None or self.over, _TIMEOUT_S)
            if self._address is None:
                raise ConnectionRefusedError("no server")
            return self._address

    def note(self, what: str) -> None:
        with self._changed:
            self._done += 1
            self.tally.add(WORK, what)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()

    def wait(self, more: int, timeout_s: float) -> bool:
        """Wait until so many more requests had an answer; say whether it came to that."""
        with self._changed:
            goal = self._done + more
            return self._changed.wait_for(lambda: self._done >= goal or self.failure is not None, timeout_s)


@dataclass
class Shelf:
    """What one client was promised."""

    tags: Doubts[tuple[str, str], str] = field(default_factory=lambda: Doubts(""))
    manifests: Doubts[tuple[str, str], bool] = field(default_factory=lambda: Doubts(nothing=False))
    images: dict[str, Image] = field(default_factory=dict)
    unfinished: list[tuple[str, str]] = field(default_factory=list)  # blobs whose last byte was never sent
    v1_tags: Doubts[tuple[str, str], str] = field(default_factory=lambda: Doubts(""))
    chains: dict[str, list[v1client.Layer]] = field(default_factory=dict)


class Client:
    """One client; `work` is for a thread of its own."""

    def __init__(self, number: int, seed: int, arena: Arena, beside: Callable[..., int], *, password: str = "") -> None:
        self.name, self._arena, self._beside = f"client{number}", arena, beside
        self._dice = random.Random(f"{seed} {number}")
        self._repositories = [f"{self.name}/one", f"{self.name}/two"]
        self._old = f"{self.name}/old"
        self._basic = "Basic " + base64.b64encode(f"{self.name}:{password}".encode()).decode() if password else None
        self._serial = 0
        self._past: deque[str] = deque(maxlen=_PAST)
        self.shelf = Shelf()

    def work(self) -> None:
        """Do random things until it is over."""
        try:
            while not self._arena.over:
                with self._arena.step():
                    self._one()
        except BaseException as error:  # noqa: BLE001 - the round ends with it, in its own thread
            error.add_note("\n".join(("before that:", *self._past)))
            self._arena.fail(error)

    def _one(self) -> None:
        steps = {
            self._push: 5,
            self._push_again: 2,
            self._pull: 3,
            self._delete_tag: 1,
            self._delete_manifest: 1,
            self._give_up: 1,
            self._push_v1: 3,
            self._pull_v1: 1,
            self._delete_v1: 1,
            self._remove_repository: 1,
        }
        step = self._dice.choices(list(steps), list(steps.values()))[0]
        try:
            step()
        except Refused:
            self._arena.note("refusals")
        except CUT:
            self._arena.note("requests cut off")

    # Requests.

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Make one request on a connection of its own."""
        host, port = self._arena.address()
        sent = {name.replace("_", "-"): value for name, value in headers.items()} | {"Connection": "close"}
        if self._basic is not None:
            sent["Authorization"] = self._basic
        with closing(http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)) as connection:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        self._hear(method, path, answer.status)
        if answer.status in REFUSALS:
            raise Refused(answer.body)
        return answer

    def _expect(self, answer: Answer, *codes: int) -> Answer:
        assert answer.status in codes, f"{self.name}: {answer.status} {answer.body[:500]!r}"
        return answer

    # What a client of today does.

    def _new_image(self) -> Image:
        self._serial += 1
        layers = self._dice.sample(_SHARED, self._dice.randint(0, 2))
        own = prose(self._dice.randint(2, 300) * KIB, self._dice.getrandbits(30))
        config = json.dumps({"architecture": "amd64", "os": "linux", "of": self.name, "number": self._serial}).encode()
        return Image.of(config, own, *layers)

    def _push(self) -> None:
        image = self._new_image()
        self.shelf.images[image.digest] = image
        self._push_image(self._dice.choice(self._repositories), self._dice.choice(_TAGS), image)

    def _push_again(self) -> None:
        """Let a tag point to what was pushed before: perhaps still there, perhaps to be sent again."""
        if self.shelf.images:
            image = self.shelf.images[self._dice.choice(sorted(self.shelf.images))]
            self._push_image(self._dice.choice(self._repositories), self._dice.choice(_TAGS), image)

    def _push_image(self, repository: str, tag: str, image: Image) -> None:
        for _ in range(4):
            for data in image.blobs:
                self._push_blob(repository, data)
            if self._put_manifest(repository, tag, image):
                return
        raise Refused("collected again and again")

    def _put_manifest(self, repository: str, tag: str, image: Image) -> bool:
        """Put it under a tag; say whether its blobs are still there."""
        shelf, key = self.shelf, (repository, image.digest)
        try:
            answer = self.ask("PUT", f"/v2/{repository}/manifests/{tag}", image.body, Content_Type=MANIFEST)
        except CUT:
            shelf.tags.doubt((repository, tag), image.digest)
            shelf.manifests.doubt(key, True)
            raise
        if answer.status in (400, 404) and b"BLOB_UNKNOWN" in answer.body:
            return False  # a collection without grace came in between
        self._expect(answer, 201)
        shelf.tags.set((repository, tag), image.digest)
        shelf.manifests.set(key, True)
        self._arena.note("v2 pushes")
        return True

    def _push_blob(self, repository: str, data: bytes) -> None:
        path = f"/v2/{repository}/blobs/{digest_of(data)}"
        if self._dice.random() < 0.5 and self._expect(self.ask("HEAD", path), 200, 404).status == 200:
            return
        self._dice.choice((self._post, self._put, self._patch, self._patch, self._mount))(repository, data)

    def _begin(self, repository: str, query: str = "") -> Answer:
        return self._expect(self.ask("POST", f"/v2/{repository}/blobs/uploads/{query}", b""), 202, 201)

    def _post(self, repository: str, data: bytes) -> None:
        self._expect(self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest_of(data)}", data), 201)

    def _put(self, repository: str, data: bytes) -> None:
        place = self._begin(repository).headers["Location"]
        self._end(place, data, data)

    def _mount(self, repository: str, data: bytes) -> None:
        other = self._dice.choice(self._repositories)
        answer = self._begin(repository, f"?mount={digest_of(data)}&from={other}")
        if answer.status == 202:
            self._end(answer.headers["Location"], data, data)

    def _patch(self, repository: str, data: bytes) -> None:
        """Send it in pieces; where a request is cut off, ask how far it came and go on."""
        place, held, cuts = self._begin(repository).headers["Location"], 0, 0
        while held < len(data):
            piece = data[held : held + self._dice.randint(1, 4) * _PIECE]
            try:
                span = f"{held}-{held + len(piece) - 1}"
                answer = self._gone(self.ask("PATCH", place, piece, Content_Range=span), 202)
                held = self._held(answer, held + len(piece), held + len(piece))
                self._arena.note("pieces of uploads")
            except CUT:
                cuts += 1
                if cuts > 3:
                    raise
                held = self._held(self._gone(self.ask("GET", place), 204), held, held + len(piece))
        self._end(place, b"", data)

    def _held(self, answer: Answer, least: int, most: int) -> int:
        held = int(answer.headers["Range"].partition("-")[2]) + 1
        held = 0 if not least and held == 1 else held  # nothing is told as one byte is
        assert least <= held <= most, f"{held} bytes are held, and {least} were acknowledged"
        return held

    def _end(self, place: str, rest: bytes, data: bytes) -> None:
        self._gone(self.ask("PUT", f"{place}?digest={digest_of(data)}", rest), 201)

    def _gone(self, answer: Answer, *codes: int) -> Answer:
        """Expect an answer, or that the upload is too old: the clock jumps."""
        if answer.status == 404 and b"BLOB_UPLOAD_UNKNOWN" in answer.body:
            raise Refused("the upload has expired")
        return self._expect(answer, *codes)

    def _give_up(self) -> None:
        """Begin a blob that nobody else has, and never end it."""
        self._serial += 1
        data = noise(100 * KIB, self._dice.getrandbits(40))
        repository = self._dice.choice(self._repositories)
        place = self._begin(repository).headers["Location"]
        self.shelf.unfinished.append((repository, digest_of(data)))
        self._gone(self.ask("PATCH", place, data[:_PIECE], Content_Range=f"0-{_PIECE - 1}"), 202)
        self._arena.note("uploads given up")

    def _pull(self) -> None:
        key = self._dice.choice([(one, tag) for one in self._repositories for tag in _TAGS])
        self.see_tag(*key)
        self._arena.note("v2 pulls")

    def see_tag(self, repository: str, tag: str) -> None:
        """Pull what a tag points to and compare all of it."""
        answer = self._expect(self.ask("GET", f"/v2/{repository}/manifests/{tag}"), 200, 404)
        digest = digest_of(answer.body) if answer.status == 200 else ""
        self.shelf.tags.see((repository, tag), digest)
        if digest:
            self.shelf.manifests.see((repository, digest), True)
            self.see_blobs(repository, self.shelf.images[digest])

    def see_blobs(self, repository: str, image: Image) -> None:
        """Pull every blob of an image that is there."""
        for data in image.blobs:
            answer = self._expect(self.ask("GET", f"/v2/{repository}/blobs/{digest_of(data)}"), 200)
            assert answer.body == data, f"{repository}: {digest_of(data)} is not what was pushed"

    def _delete_tag(self) -> None:
        repository, tag = self._dice.choice(self._repositories), self._dice.choice(_TAGS)
        tags = self.shelf.tags
        before = tags.sure((repository, tag))
        if self._delete(f"/v2/{repository}/manifests/{tag}", lambda: tags.doubt((repository, tag), "")) == 404:
            tags.see((repository, tag), "")
            return
        tags.set((repository, tag), "")
        if before and self._dice.random() < 0.5 and (code := self._undelete(f"{repository}:{tag}")) != 66:
            (tags.doubt if code else tags.set)((repository, tag), before)

    def _delete_manifest(self) -> None:
        there = [key for key in self.shelf.manifests.known() if self.shelf.manifests.sure(key)]
        if not there:
            return
        repository, digest = key = self._dice.choice(there)
        tags = [(repository, tag) for tag in _TAGS if digest in self.shelf.tags.of((repository, tag))]

        def doubt() -> None:
            self.shelf.manifests.doubt(key, False)
            for tag in tags:
                self.shelf.tags.doubt(tag, "")

        self._expect_deleted(self._delete(f"/v2/{repository}/manifests/{digest}", doubt))
        self.shelf.manifests.set(key, False)
        for tag in tags:
            left = self.shelf.tags.of(tag) - {digest} | {""}
            self.shelf.tags.set(tag, "")
            for other in left:
                self.shelf.tags.doubt(tag, other)

    def _expect_deleted(self, status: int) -> None:
        assert status == 202, f"{self.name}: what was promised is not there to be deleted: {status}"

    def _delete(self, path: str, doubt: Callable[[], None]) -> int:
        try:
            answer = self.ask("DELETE", path)
        except CUT:
            doubt()
            raise
        self._arena.note("deletions")
        return self._expect(answer, 202, 404).status

    def _remove_repository(self) -> None:
        """By the operator's command, and perhaps back."""
        if self._dice.random() < 0.6:
            return
        repository, shelf = self._dice.choice(self._repositories), self.shelf
        code = self._run("repo", "rm", repository)
        before = {key: shelf.tags.sure(key) for key in shelf.tags.known() if key[0] == repository}
        held = {key: shelf.manifests.sure(key) for key in shelf.manifests.known() if key[0] == repository}
        refused = code in (73, 75)  # perhaps on the way, and then another process goes on
        for key in before:
            (shelf.tags.doubt if refused else shelf.tags.set)(key, "")
        for each in held:
            (shelf.manifests.doubt if refused else shelf.manifests.set)(each, False)
        if code:
            return  # an earlier removal is not to be undone
        self._arena.note("repositories removed")
        if None in {*before.values(), *held.values()} or self._dice.random() < 0.5:
            return
        code = self._undelete(repository)
        if code == 66:
            return
        for key, digest in before.items():
            (shelf.tags.doubt if code else shelf.tags.set)(key, digest or "")
        for each, there in held.items():
            (shelf.manifests.doubt if code else shelf.manifests.set)(each, bool(there))

    def _undelete(self, what: str) -> int:
        """Bring it back; 66 if a collection without grace came in between, others if it may or may not be back."""
        code = self._run("undelete", what)
        if code == 0:
            self._arena.note("undeletions")
        return code

    def _run(self, *command: str) -> int:
        code = self._beside(*command, codes=(0, 66, 73, 75))
        self._past.append(f"{time.monotonic():.3f} cas {' '.join(command)}: {code}")
        return code

    # What an old engine does.

    def _hear(self, method: str, path: str, status: int) -> None:
        self._past.append(f"{time.monotonic():.3f} {method} {path} {status}")

    def _engine(self) -> v1client.Client:
        host, port = self._arena.address()
        return v1client.Client(host, port, timeout_s=_TIMEOUT_S, basic=self._basic, heard=self._hear)

    def _refusal(self, error: v1client.Refused, *more: int) -> Exception:
        may = error.status in (*REFUSALS, *more)
        return Refused(str(error)) if may else AssertionError(f"{self.name}: {error}")

    def _push_v1(self) -> None:
        self._serial += 1
        layers = [self._dice.choice(_SHARED), prose(self._dice.randint(1, 80) * KIB, self._dice.getrandbits(30))]
        images = v1client.chain(layers, seed=f"{self.name} {self._serial}")
        top, key = images[-1].id, (self._old, self._dice.choice(_TAGS))
        self.shelf.chains[top] = images
        try:
            self._engine().push(self._old, images, [key[1]])
        except v1client.Refused as error:
            self.shelf.v1_tags.doubt(key, top)  # the tag comes before the last request
            raise self._refusal(error, _EXPIRED, 400, 404, 409) from error
        except CUT:
            self.shelf.v1_tags.doubt(key, top)
            raise
        self.shelf.v1_tags.set(key, top)
        self._arena.note("v1 pushes")

    def _pull_v1(self) -> None:
        self.see_v1(self._dice.choice(_TAGS))
        self._arena.note("v1 pulls")

    def see_v1(self, tag: str) -> None:
        """Pull a tag as an engine does and compare all of it."""
        key = (self._old, tag)
        try:
            pulled = self._engine().pull(self._old, tag)
        except v1client.Refused as error:
            if error.status != 404:
                raise self._refusal(error, _EXPIRED) from error
            self.shelf.v1_tags.see(key, "")
            return
        self.shelf.v1_tags.see(key, pulled[-1].id)
        for got, sent in zip(pulled, self.shelf.chains[pulled[-1].id], strict=True):
            assert isinstance(sent.layer, bytes)
            assert (got.json, "sha256:" + got.sha256) == (sent.json, digest_of(sent.layer)), f"image {got.id}"

    def _delete_v1(self) -> None:
        key = (self._old, self._dice.choice(_TAGS))
        host_tags = self.shelf.v1_tags
        try:
            answer = self._engine().registry("DELETE", f"/v1/repositories/{key[0]}/tags/{key[1]}", None, self._login())
        except CUT:
            host_tags.doubt(key, "")
            raise
        if answer.status in REFUSALS:
            raise Refused(answer.body)
        assert answer.status in (200, 404), answer
        if answer.status == 404:
            host_tags.see(key, "")
        host_tags.set(key, "")
        self._arena.note("deletions")

    def _login(self) -> Mapping[str, str]:
        return {} if self._basic is None else {"Authorization": self._basic}

    # What the judge asks.

    def look(self) -> None:
        """See that all is as promised, and nothing else is there."""
        for repository in self._repositories:
            for tag in _TAGS:
                self.see_tag(repository, tag)
            listed = self.ask("GET", f"/v2/{repository}/tags/list")
            there = json.loads(listed.body)["tags"] or [] if listed.status == 200 else []
            assert sorted(there) == [tag for tag in _TAGS if self.shelf.tags.sure((repository, tag))]
        for repository, digest in self.shelf.manifests.known():
            answer = self._expect(self.ask("GET", f"/v2/{repository}/manifests/{digest}"), 200, 404)
            self.shelf.manifests.see((repository, digest), answer.status == 200)
            if answer.status == 200:
                self.see_blobs(repository, self.shelf.images[digest])
        for repository, digest in self.shelf.unfinished:
            self._expect(self.ask("GET", f"/v2/{repository}/blobs/{digest}"), 404)
        for tag in _TAGS:
            self.see_v1(tag)

    def pull_all(self) -> Counter[str]:
        """Pull all that is there for sure, and count what came of it: `whole` is what was promised."""
        there = [key for key in self.shelf.manifests.known() if self.shelf.manifests.sure(key)]
        return Counter(
            self._pulled(repository, data) for repository, digest in there for data in self.shelf.images[digest].blobs
        )

    def _pulled(self, repository: str, data: bytes) -> str:
        try:
            answer = self.ask("GET", f"/v2/{repository}/blobs/{digest_of(data)}")
        except CUT:
            return "cut short"
        if answer.status == 200:
            return "whole" if answer.body == data else "wrong"
        return {404: "missing", 500: "cut short"}.get(answer.status, str(answer.status))

    def repositories(self) -> Iterator[str]:
        """Give all that it may have made."""
        yield from (*self._repositories, self._old)
