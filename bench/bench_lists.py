"""Whether a list's first page costs more where there is more: tags and catalogue at 100 entries and at many.

Rows `list/…`. The stores are filled through `api.content`, in this process; the lists are asked for over the wire.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from api.content import repositories, tags
from api.content.repositories import Access
from api.content.repository import Repository
from bench.field import Field, Runner
from bench.load import Connection
from bench.measure import Load, Row, Run, compare, same
from bench.registry import MANIFEST
from cas import Digest, Names, Store

FEW = 100
PAGE = 100
_AT_ONCE = 500
MANY_TAGS = Repository.of("bench/tags")


def ask(run: Run) -> Iterator[Row]:
    with Field(run.folder) as field:
        few, many = (filled(run, field, number) for number in (FEW, run.scale.names))
        for name, target in {
            "tags": f"/v2/{MANY_TAGS.short}/tags/list?n={PAGE}",
            "catalogue": f"/v2/_catalog?n={PAGE}",
        }.items():
            loads = [
                Load(runner, same([partial(page, target)] * (run.scale.requests // 4)), 1) for runner in (many, few)
            ]
            row = compare(f"list/{name}", loads, run.scale.rounds, per="1,000")
            row["notes"] = {"entries": run.scale.names, "few": FEW}
            yield row


def page(target: str, connection: Connection) -> int:
    answer = connection.ask("GET", target)
    assert answer.status == 200, answer.head
    return answer.size


def filled(run: Run, field: Field, number: int) -> Runner:
    """Make a store with so many repositories and, in one of them, so many tags; then serve it."""
    runner_name = "cas" if number != FEW else "with 100"
    root = run.folder / f"lists-{number}"
    with Store.open(root, create=True) as store:
        for start in range(0, number, _AT_ONCE):
            store.change(partial(enter, start=start, stop=min(start + _AT_ONCE, number)))
    runner = field.start("cas", "--root", str(root))
    return Runner(runner_name, runner.address, root, runner.processes)


def enter(names: Names, start: int, stop: int) -> None:
    repositories.ensure(names, MANY_TAGS, 0, Access.PRIVATE)
    target = tags.Manifest(Digest.of(b"{}"), MANIFEST, 2)
    for number in range(start, stop):
        repositories.ensure(names, Repository.of(f"team{number // 50:05}/app-{number % 50}"), 0, Access.PRIVATE)
        tags.put(names, MANY_TAGS, f"v{number}", target, {})
