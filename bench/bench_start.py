"""Whether a large store starts more slowly than an empty one: from the command to its first answer. Row `start/chunks`.

The chunks are rows written straight into the index, spread over packs that are sealed and consist of a hole; no start
reads packs.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from bench.field import Field
from bench.load import MIB, Connection
from bench.measure import Row, Run, percentile
from cas import EngineSettings, Store
from cas.extent import Codec, Extent
from cas.index import Edit, Index
from cas.layout import Layout
from cas.lease import OWNER_SIZE
from cas.records import ChunkRef, Role
from cas.tables import PackRow, PackState

CHUNK = 64 << 10
CHUNKS_A_PACK = 512 * MIB // CHUNK
_AT_ONCE = 20_000


def ask(run: Run) -> Iterator[Row]:
    roots = {"empty": run.folder / "start-empty", "cas": run.folder / "start-full"}
    for root in roots.values():
        Store.open(root, create=True).close()
    fill(roots["cas"], run.scale.chunks)
    taken: dict[str, list[float]] = {name: [] for name in roots}
    for _ in range(max(3, run.scale.rounds)):
        for name, root in roots.items():
            taken[name].append(first_answer_ms(run.folder, root))
    servers = {
        name: {
            "rate": round(1000 / statistics.median(times), 3),
            "p50_ms": round(statistics.median(times), 1),
            "p99_ms": round(percentile(sorted(times), 0.99), 1),
        }
        for name, times in taken.items()
    }
    notes = {"chunks": run.scale.chunks, "index_bytes_a_chunk": index_bytes(roots["cas"]) // run.scale.chunks}
    yield {
        "key": "start/chunks",
        "clients": 1,
        "rounds": len(taken["cas"]),
        "per": "1",
        "servers": servers,
        "notes": notes,
    }


def fill(root: Path, chunks: int) -> None:
    """Write rows of chunks and of the packs they would lie in, and make these, as long as they would be."""
    layout = Layout(root)
    for pack in range(1, -(-chunks // CHUNKS_A_PACK) + 1):
        layout.pack(pack).parent.mkdir(exist_ok=True)
        layout.pack(pack).touch()
        os.truncate(layout.pack(pack), 512 * MIB)
    index = Index(layout.index, EngineSettings())
    try:
        for start in range(0, chunks, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, chunks))

            def enter(edit: Edit, numbers: range = numbers) -> None:
                for number in numbers:
                    pack, place = divmod(number, CHUNKS_A_PACK)
                    if not place:
                        edit.put_pack(PackRow(pack + 1, PackState.SEALED, Role.DATA, bytes(OWNER_SIZE), 512 * MIB))
                    extent = Extent(pack + 1, place * CHUNK, (place + 1) * CHUNK, CHUNK, Codec.RAW)
                    edit.put_chunk(ChunkRef(os.urandom(16), number, CHUNK), extent)

            index.write(enter)
    finally:
        index.close()


def first_answer_ms(folder: Path, root: Path) -> float:
    with Field(folder) as field:
        began = time.perf_counter()
        runner = field.start("cas", "--root", str(root))
        with Connection(runner.address) as connection:
            assert connection.ask("GET", "/v2/").status == 200
        return 1000 * (time.perf_counter() - began)


def index_bytes(root: Path) -> int:
    return Layout(root).index_data.stat().st_blocks * 512
