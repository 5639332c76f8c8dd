"""The gate of a registry that has no accounts: a separate index made the token and is asked about it.

Knows the two questions a registry asks an index and remembers good answers for a while, never bad ones. Refuses to
know how the index decides. A token is trusted for what it says only once the index took it.
"""

from __future__ import annotations

import hashlib
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar, final

import httpx2

from api import strict
from api.access.principal import ANONYMOUS, Action, Caller
from api.content import repositories
from api.content.repositories import Access
from api.content.repository import Repository
from api.errors import RETRY_AFTER_S, ApiError
from api.threads import Run
from api.v1 import homes, names, refusals, tokens
from api.v1.rights import GRANTS, Admission, Ask, Need, refused, suffices
from cas import Reads, Store

T = TypeVar("T")

MOST_REMEMBERED: Final = 1000  # tokens; past it the one that was met longest ago is asked about again
MOST_OPENED: Final = 10_000  # images remembered of a token
_MOST_IDS: Final = 1_000_000  # ids of all remembered lists together, 32 bytes each and their bookkeeping
_ANSWER_BYTES: Final = 64 << 20  # an image list of half a million ids


@dataclass(slots=True)
class Answer:
    """What the index said about one token."""

    at: float
    ids: frozenset[bytes]
    opened: set[str] = field(default_factory=set)


@final
class Index:
    """The index as a registry sees it. Lives on one event loop."""

    def __init__(self, url: str, run: Run, clock: Callable[[], float], *, timeout_s: float, remember_s: float) -> None:
        # Neither proxies nor certificates from the environment: what this server trusts is what it was told.
        self._client = httpx2.AsyncClient(
            timeout=timeout_s, trust_env=False, verify=ssl.create_default_context(), follow_redirects=False
        )
        self._url, self._run, self._clock, self._remember_s = url.rstrip("/"), run, clock, remember_s
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()

    async def ask(self, authorization: str, repository: Repository, *, anew: bool = False) -> Answer | None:
        """Ask whether a token is good for a repository; None if it is not.

        Raises:
            ApiError: 503, the index says nothing of use.
        """
        key = hashlib.sha256(f"{repository}\n{authorization}".encode()).digest()
        known = self._answers.get(key)
        if known is not None and not anew and 0 <= self._clock() - known.at < self._remember_s:
            return known
        body = await self._get(f"{repository}/images", authorization)
        if body is None:
            self._answers.pop(key, None)
            return None
        answer = Answer(self._clock(), await self._read(_ids, body))
        self._remember(key, answer)
        return answer

    async def opens(self, authorization: str, repository: Repository, image_id: str) -> bool:
        """Ask whether a token opens an image."""
        answer = await self.ask(authorization, repository)
        if answer is None:
            return False
        if image_id not in answer.opened:
            body = await self._get(f"{repository}/layer/{image_id}/access", authorization)
            if body is None or not await self._read(_is_open, body):
                return False
            if len(answer.opened) < MOST_OPENED:
                answer.opened.add(image_id)
        return True

    def _remember(self, key: bytes, answer: Answer) -> None:
        self._answers[key] = answer
        self._answers.move_to_end(key)
        total = sum(len(each.ids) for each in self._answers.values())
        while len(self._answers) > MOST_REMEMBERED or (total > _MOST_IDS and len(self._answers) > 1):
            _, oldest = self._answers.popitem(last=False)
            total -= len(oldest.ids)

    async def _get(self, path: str, authorization: str) -> bytes | None:
        """Fetch what the index says; None for a no."""
        url = f"{self._url}/v1/repositories/{path}"
        body = bytearray()
        try:
            async with self._client.stream("GET", url, headers={"Authorization": authorization}) as response:
                if response.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
                    raise _gone()
                async for block in response.aiter_bytes():
                    body += block
                    if len(body) > _ANSWER_BYTES:
                        raise _gone()
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _gone() from error
        return bytes(body) if response.status_code == httpx2.codes.OK else None

    async def _read(self, step: Callable[[bytes], T], body: bytes) -> T:
        try:
            return await self._run(step, body)
        except ValueError:
            raise _gone() from None


def _gone() -> ApiError:
    return ApiError(*refusals.INDEX_GONE, headers={"Retry-After": str(RETRY_AFTER_S)})


def _ids(body: bytes) -> frozenset[bytes]:
    listed = strict.load(body)
    entries = listed if isinstance(listed, list) else []
    texts = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return frozenset(bytes.fromhex(text) for text in texts if isinstance(text, str) and names.is_image_id(text))


def _is_open(body: bytes) -> bool:
    told = strict.load(body)
    return isinstance(told, dict) and told.get("access") is True


@dataclass(frozen=True, slots=True)
class Voucher:
    """One request's token, to be asked about images."""

    index: Index
    authorization: str
    repository: Repository

    async def lists(self, image_id: str) -> bool:
        """Tell whether an id is in the index's list; a list that lacks it may be an old one."""
        wanted = bytes.fromhex(image_id)
        for anew in (False, True):
            answer = await self.index.ask(self.authorization, self.repository, anew=anew)
            if answer is not None and wanted in answer.ids:
                return True
        return False

    async def opens(self, image_id: str) -> bool:
        """Tell whether the index lets the token's owner see an image."""
        return await self.index.opens(self.authorization, self.repository, image_id)


@final
class VouchedGate:
    """Lets in whose token the index knows."""

    def __init__(self, index: Index, store: Store, run: Run) -> None:
        self._index, self._store, self._run = index, store, run

    async def close(self) -> None:
        """End the connections to the index."""
        await self._index.close()

    async def admit(self, ask: Ask) -> Admission:
        """Admit a request.

        Raises:
            ApiError: 401, 404, or 503 if the index does not answer.
        """
        if ask.need in {Need.NOTHING, Need.WHOEVER}:
            return Admission()
        authorization = ask.authorization.strip()
        named = tokens.fields(authorization)
        if named is None:
            raise refused(ask.side)
        repository, access = named
        given = GRANTS.get(access, frozenset[Action]())
        if not _is_enough(ask, repository, given) or await self._index.ask(authorization, repository) is None:
            raise refused(ask.side)
        voucher = Voucher(self._index, authorization, repository)
        if ask.need is Need.IMAGE:
            await self._check_image(ask, voucher)
        scope = frozenset((str(repository), action) for action in given)
        return Admission(Caller(ANONYMOUS, scope), str(repository), vouch=voucher)

    async def _check_image(self, ask: Ask, voucher: Voucher) -> None:
        assert ask.image_id is not None, "a route with such a need has an image in its path"
        is_private = await self._run(self._store.read, partial(_seen, voucher.repository, ask.image_id))
        if is_private is None or (is_private and not await voucher.opens(ask.image_id)):
            raise ApiError(*refusals.IMAGE_NOT_FOUND)


def _is_enough(ask: Ask, repository: Repository, given: frozenset[Action]) -> bool:
    if ask.need is Need.IMAGE:
        return Action.PULL in given
    if ask.need is Need.UPLOAD:
        return Action.PUSH in given
    if ask.need is Need.OWN:  # a write token is the most that an index hands out
        return ask.repository == repository and Action.PUSH in given
    return ask.repository == repository and ask.need is not Need.ACCOUNT and suffices(ask.need, given)


def _seen(repository: Repository, image_id: str, reads: Reads) -> bool | None:
    """Tell whether an image's repository is private; None if the image is not seen from there."""
    if homes.find(reads, str(repository), image_id) is None:
        return None
    info = repositories.find(reads, repository)
    return info is None or info.access is Access.PRIVATE
