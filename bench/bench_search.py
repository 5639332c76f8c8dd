"""How long a search takes among 100,000 repositories, nine of ten of them private: in the store, and over HTTP.

For everybody there is (nobody in particular, a user, a user who may pull everything, an admin) and every kind of term.
Prints one JSON line a case; the milliseconds of the slowest case stand in the last.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent))

from api.access import grants, policy
from api.access.accounts import Accounts
from api.access.principal import NOBODY, Action, Caller, Principal
from api.access.settings import AccessSettings, Mode
from api.content import catalogue, repositories
from api.content.repositories import Access
from api.content.repository import Repository
from cas import Names, Reads, Store
from tests.support.serving import Server, starting

AUTH: Final = AccessSettings(mode=Mode.AUTH)
BELOW_ONE: Final = 50  # repositories of one name space
TERMS: Final = {"every": "", "common": "app", "rare": "user01234/base-7", "missing": "no-such-thing"}
WORDS: Final = ("app", "web", "base", "tool", "proxy")
CALLERS: Final = {
    "nobody": NOBODY,
    "user": Caller(Principal("user00007")),
    "user of all": Caller(Principal("wide")),
    "admin": Caller(Principal("root", admin=True)),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repositories", type=int, default=100_000)
    options.add_argument("--runs", type=int, default=500)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        began = time.perf_counter()
        with Store.open(root, create=True) as store:
            fill(store, given.repositories)
            filled_s = time.perf_counter() - began
            pages = {access: len(store.scan(f"catalogue.{access}")) for access in (*Access,)}
            print(json.dumps({"repositories": given.repositories, "pages": pages, "filled_s": round(filled_s, 1)}))
            slowest = [measure("store", in_store(store), given.runs)]
        with starting(Path(folder)) as start:
            server = start(root, workers=1, flags=["--mode", "auth"])
            slowest.append(measure("http", over_http(server), given.runs))
    print(json.dumps({"slowest_p50_ms": max(s[0] for s in slowest), "slowest_p99_ms": max(s[1] for s in slowest)}))


def fill(store: Store, number: int) -> None:
    """Make repositories in a random order, as pushes would, and the accounts that look for them."""
    accounts = Accounts(store, AUTH, time.time)
    for name in ("user00007", "wide", "root"):
        accounts.add(name, "secret", admin=name == "root")
    store.change(lambda names: grants.put(names, "wide", "*", [Action.PULL]))
    store.change(lambda names: grants.put(names, "user00007", "user00042/*", [Action.PULL]))
    dice = random.Random(1)
    wanted = [f"user{n // BELOW_ONE:05}/{WORDS[n % len(WORDS)]}-{n % BELOW_ONE}" for n in range(number)]
    dice.shuffle(wanted)

    def enter(names: Names, some: list[str]) -> None:
        for name in some:
            access = Access.PUBLIC if dice.random() < 0.1 else Access.PRIVATE
            repositories.ensure(names, Repository.of(name), 0, access)

    for start in range(0, number, 500):
        store.change(partial(enter, some=wanted[start : start + 500]))


def in_store(store: Store) -> Callable[[str, str], int]:
    """Search by the function that every protocol calls: the first 25 that may be seen."""

    def search(who: str, term: str) -> int:
        def look(reads: Reads) -> int:
            return len(list(islice(catalogue.search(reads, policy.sight(reads, AUTH, CALLERS[who]), term), 25)))

        return store.read(look)

    return search


def over_http(server: Server) -> Callable[[str, str], int]:
    """Search as engines do, over one connection."""
    connection = server.connection()

    def search(who: str, term: str) -> int:
        name = CALLERS[who].principal.name
        credentials = base64.b64encode(f"{name}:secret".encode()).decode()
        headers = {} if name is None else {"Authorization": f"Basic {credentials}"}
        connection.request("GET", f"/v1/search?q={term.replace('/', '%2F')}&n=25", headers=headers)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return len(json.loads(body)["results"])

    return search


def measure(way: str, search: Callable[[str, str], int], runs: int) -> tuple[float, float]:
    """Time every case; give the slowest median and the slowest 99th percentile."""
    slowest = (0.0, 0.0)
    for who in CALLERS:
        for kind, term in TERMS.items():
            found = search(who, term)  # warm, as a server is
            taken = sorted(timed(search, who, term) for _ in range(runs))
            p50, p99 = (round(1000 * taken[int(share * (runs - 1))], 2) for share in (0.5, 0.99))
            print(json.dumps({"by": way, "who": who, "term": kind, "found": found, "p50_ms": p50, "p99_ms": p99}))
            slowest = max(slowest[0], p50), max(slowest[1], p99)
    return slowest


def timed(search: Callable[[str, str], int], who: str, term: str) -> float:
    began = time.perf_counter()
    search(who, term)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
