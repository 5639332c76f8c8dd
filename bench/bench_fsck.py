"""How fast a store is checked, and made anew from its packs. Rows `fsck/…`.

`data` and `deep` are a check of a store beside the bare work: reading the same files once, from the cache too, and
summing them with the same hash. `rebuild` is `cas fsck --rebuild-index` of sealed packs whose footers and records are
real and whose chunks are tiny, since a rebuild reads none of them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import xxhash

from bench.corpus import Noise
from bench.load import MIB
from bench.measure import Row, Run, limit
from cas import Depth, Digest, Name, Record, Scope, Store, rebuild_index
from cas.commit import Draft
from cas.index import Edit
from cas.records import BlobEntry, Body, ChunkEntry, ChunkRef, NameEdit, Role, Segment, link
from cas.tables import PackRow, PackState
from tests.support.engine import prose, push, tar_of

DEPTHS = {"data": Depth.DATA, "deep": Depth.DEEP}
IN_BLOB = 1_000  # chunks of a blob of the store that is rebuilt
BLOBS_IN_PACK = 8
_TINY = 16  # bytes stored of each


def ask(run: Run) -> Iterator[Row]:
    """Fill a store with a tar of what does not compress, and with what does; then one of very many chunks.

    Half of the chunks are about 64 KiB in a pack, half of them a third of that.
    """
    root = run.folder / "checked"
    with Store.open(root, create=True) as store:
        push(store, "noise", tar_of({str(n): block for n, block in enumerate(Noise(1).blocks(run.scale.large))}), MIB)
        push(store, "prose", prose(run.scale.large), MIB)
    with Store.open(root) as store:
        for name, depth in DEPTHS.items():
            yield checking(run, store, root, f"fsck/{name}", depth)
    shutil.rmtree(root)
    yield rebuilding(run)


def checking(run: Run, store: Store, root: Path, key: str, depth: Depth) -> Row:
    """Check and read barely, in turns; rates are of the packs' bytes."""
    packs = sorted((root / "packs").rglob("*.pack"))
    size, chunks = sum(path.stat().st_size for path in packs), store.stats().chunks
    ours, bare = list[float](), list[float]()
    for _ in range(max(3, run.scale.rounds)):
        ours.append(rate(size, lambda: check(store, depth)))
        bare.append(rate(size, lambda: sum_up(packs)))
    row: Row = {"key": key, "clients": 1, "rounds": len(ours), "per": "GiB", "servers": {}}
    row["notes"] = {"chunks": chunks, "kib_a_chunk": round(size / chunks / 1024, 1)}
    limit(row, "cas", ours)
    limit(row, "bare read and XXH3-64", bare)
    return row


def check(store: Store, depth: Depth) -> None:
    found = list(store.check(Scope(depth)))
    assert found == []


def sum_up(packs: list[Path]) -> None:
    """Read files through and hash what they hold, a MiB at a time."""
    buffer = bytearray(MIB)
    for path in packs:
        fd, at = os.open(path, os.O_RDONLY), 0
        running = xxhash.xxh3_64()
        while got := os.preadv(fd, [buffer], at):
            running.update(memoryview(buffer)[:got])
            at += got
        os.close(fd)


def rate(size: int, work: Callable[[], None]) -> float:
    """Return MiB a second."""
    began = time.perf_counter()
    work()
    return size / MIB / (time.perf_counter() - began)


def rebuilding(run: Run) -> Row:
    """Lose the index of a store of many chunks, several times."""
    root = run.folder / "rebuilt"
    blobs = run.scale.chunks // IN_BLOB
    with Store.open(root, create=True) as store:
        fill(store, blobs)
    taken: list[float] = []
    for _ in range(max(2, run.scale.rounds)):
        shutil.rmtree(root / "index")
        began = time.perf_counter()
        report = rebuild_index(root)
        taken.append(time.perf_counter() - began)
        assert (report.chunks, report.blobs, report.damaged) == (blobs * IN_BLOB, blobs, [])
    shutil.rmtree(root)
    row: Row = {"key": "fsck/rebuild", "clients": 1, "rounds": len(taken), "per": "1,000", "servers": {}}
    limit(row, "cas", [blobs * IN_BLOB / 1000 / each for each in taken])
    row["notes"] = {
        "chunks": blobs * IN_BLOB,
        "s_a_million": round(statistics.median(taken) / blobs / IN_BLOB * 1e6, 1),
    }
    return row


def fill(store: Store, blobs: int) -> None:
    """Write packs of tiny chunks, each with its record, and name a blob for every segment."""
    parts = store._parts  # noqa: SLF001 - a million chunks are not pushed
    for first in range(0, blobs, BLOBS_IN_PACK):
        writer, made = parts.packs.create(Role.DATA), list[tuple[BlobEntry, str]]()
        for number in range(first, min(first + BLOBS_IN_PACK, blobs)):
            stored = os.urandom(IN_BLOB * _TINY)
            offset, pieces = writer.append([stored]), [stored[at : at + _TINY] for at in range(0, len(stored), _TINY)]
            entries = [
                ChunkEntry(
                    xxhash.xxh3_128_digest(one), n, offset + n * _TINY, _TINY, _TINY, 0, xxhash.xxh3_64_intdigest(one)
                )
                for n, one in enumerate(pieces)
            ]
            refs = tuple(ChunkRef(entry.key, entry.salt, entry.raw) for entry in entries)
            chain, digest = link(b"", refs), Digest("sha256", hashlib.sha256(stored).digest())
            writer.commit(Body(chunks=entries, segments=[Segment(number + 1, 0, refs, chain)]))
            made.append((BlobEntry(digest, len(stored), 0, number + 1, chain=chain), str(number)))
        parts.packs.finish(writer)
        row = PackRow(writer.pack, PackState.SEALED, Role.DATA, parts.owner, writer.end)

        def enter(edit: Edit, draft: Draft, made: list[tuple[BlobEntry, str]] = made, row: PackRow = row) -> None:
            edit.put_pack(row)
            for blob, name in made:
                key, record = Name("made", name).key(), Record(b"", (blob.digest,), blob.size).encode()
                edit.put_blob(blob)
                edit.put_record(key, record)
                draft.blobs.append(blob)
                draft.edits.append(NameEdit(key, record))

        parts.committer.run(enter)
