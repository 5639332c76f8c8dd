"""Search: the one route that today's clients still send."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any, Final

from starlette.types import ASGIApp

from api.access import policy
from api.access.principal import Caller
from api.access.settings import AccessSettings
from api.content import catalogue
from api.v1.answers import answer
from api.v1.call import Call
from cas import Reads

PAGE: Final = 25
MOST: Final = 100
LAST_PAGE: Final = 1_000_000  # more than there can be; a larger number costs nothing more
_COUNTED: Final = 1000  # results counted beyond a page: the number told is right up to here, and a least past it


async def get_search(call: Call) -> ASGIApp:
    """Row 29. Paging beyond `n` is for whoever asks for it: engines never do."""
    told = call.request.query_params
    term, size, page = told.get("q", ""), _number(told.get("n"), PAGE, MOST), _number(told.get("page"), 1, LAST_PAGE)
    caller, settings = call.admission.caller, call.registry.access
    look = partial(_search, settings=settings, caller=caller, term=term, size=size, page=page)
    return answer(await call.registry.threads.run(call.store.read, look))


def _number(text: str | None, default: int, most: int) -> int:
    """Read a number leniently: clients search by hand, and something is better than a complaint."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > len(str(LAST_PAGE)):
        return default
    return min(max(int(text), 1), most)


def _search(reads: Reads, settings: AccessSettings, caller: Caller, term: str, size: int, page: int) -> dict[str, Any]:
    sight = policy.sight(reads, settings, caller)
    found = catalogue.search(reads, sight, term.lower())  # names have no upper case
    start = (page - 1) * size
    skipped = sum(1 for _ in islice(found, start))
    names = list(islice(found, size))
    total = skipped + len(names) + sum(1 for _ in islice(found, _COUNTED))
    return {
        "query": term,
        "num_results": total,
        "num_pages": -(-total // size),
        "page": page,
        "page_size": size,
        "results": [_result(name) for name in names],
    }


def _result(name: str) -> dict[str, Any]:
    flags = dict.fromkeys(("is_official", "is_automated", "is_trusted"), False)
    return {"name": name, "description": "", "star_count": 0, **flags}
