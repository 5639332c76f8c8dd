"""Routes of lists: the tags of a repository, and the catalogue of repositories. Both in byte order, page by page."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response
from starlette.types import ASGIApp

from api.access import policy
from api.content import catalogue, repositories, tags
from api.content.repository import Repository
from api.v2.call import Call
from api.v2.errors import JSON, NAME_UNKNOWN, PAGE_INVALID, Refused
from cas import Reads

_NUMBER: Final = re.compile(r"[0-9]+", re.ASCII)
_MOST_DIGITS: Final = 9  # more than any limit has
# Longer than any name, and short enough for a key: cutting there changes nothing about what follows.
_MOST_REPOSITORY_BYTES: Final = 300
_MOST_TAG_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted: at most so many, after this one."""

    limit: int
    after: str

    @classmethod
    def of(cls, call: Call, usual: int, most: int, longest: int) -> Page:
        """Read a request's parameters; of where to begin, no more than so many bytes.

        Raises:
            Refused: 400.
        """
        number, last = call.parameter("n"), call.parameter("last") or ""
        if number is not None and _NUMBER.fullmatch(number) is None:
            raise Refused(PAGE_INVALID, {"n": number[:100]})
        wanted = usual if number is None else int(number) if len(number) <= _MOST_DIGITS else most
        return cls(min(wanted, most), _place(last, longest))

    def answer(self, call: Call, said: dict[str, str], key: str, found: list[str]) -> Response:
        """Answer with a list of one more than is wanted, where there is one more: then a link leads on."""
        shown = found[: self.limit]
        body = json.dumps({**said, key: shown}).encode()
        answer = Response(body, media_type=JSON)
        if shown and len(found) > len(shown):
            query = urlencode({"n": self.limit, "last": shown[-1]})
            answer.headers["Link"] = f'<{call.request.scope["path"]}?{query}>; rel="next"'
        return answer


async def get_tags(call: Call) -> ASGIApp:
    """end-8."""
    most = call.registry.v2.tags_page
    return await call.registry.threads.run(_tags, call, Page.of(call, most, most, _MOST_TAG_BYTES))


async def get_catalogue(call: Call) -> ASGIApp:
    """The repositories that the caller may pull."""
    settings = call.registry.v2
    page = Page.of(call, settings.catalogue_page, settings.max_catalogue_page, _MOST_REPOSITORY_BYTES)
    return await call.registry.threads.run(_catalogue, call, page)


def _place(last: str, longest: int) -> str:
    """Return a place in the order of names that has the same names behind it, and is one that can be looked up.

    No name has NUL in it, so none lies between what comes before one and all that follows.
    """
    return last.partition("\0")[0].encode(errors="replace")[:longest].decode(errors="ignore")


def _tags(call: Call, page: Page) -> Response:
    found = call.store.read(partial(_tag_names, repository=call.repository, page=page))
    return page.answer(call, {"name": call.name}, "tags", found)


def _tag_names(reads: Reads, repository: Repository, page: Page) -> list[str]:
    if repositories.find(reads, repository) is None:
        raise Refused(NAME_UNKNOWN, {"name": repository.short})
    walked = tags.walk(reads, repository, page.after, step=page.limit + 1)
    return list(islice((tag for tag, _ in walked), page.limit + 1))


def _catalogue(call: Call, page: Page) -> Response:
    def look(reads: Reads) -> list[str]:
        sight = policy.sight(reads, call.registry.access, call.caller)
        return catalogue.listing(reads, sight, after=page.after, limit=page.limit + 1)

    return page.answer(call, {}, "repositories", call.store.read(look))
