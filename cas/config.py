"""Every tunable of the engine: unit in the name, default, and the reason for it (invariant I10).

Layer: L0. Filled in by `tools/`, which alone reads flags, environment and files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_SEGMENT_CHUNKS = 32_768  # what one more window of chunks is added to before the segment ends
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# The index grows by pages of each change while a process that stands still keeps it from using its own again.
_LEAST_RESERVE = 8 * MIB
_LEAST_PACK, _LEAST_RUN = 64 * KIB, 4 * KIB  # whatever is kept free: an upload has to get on


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Tunables of one store.

    Attributes:
        inline_bytes: blobs up to this size live in the index and the journal. Manifests, configs and v1 JSON are small,
            and a read of one should be one look-up.
        run_bytes: an upload that brings new bytes writes a commit record each time it has come this far. Long runs are
            long extents; a lost connection loses at most one run.
        direct_bytes: what of an upload lies beyond this is written past the page cache, and all of one announced as
            more than twice as long. A large layer would push out of the cache what is pulled all day, and a fresh page
            of it costs more CPU than hashing what it holds.
        segment_chunks: chunks in one segment of a recipe; bounds the memory of an upload and of a read.
        pack_bytes: a pack this large is sealed. Fewer files, and the most that one step of compaction copies.
        zstd_level: level for chunks of compressible blobs; 3 is where ratio stops paying for time.
        zstd_min_saving: a chunk is kept compressed only when this share of it goes away; below, `sendfile` is
        worth more.
        compact_share: a pack of which this share is dead is rewritten; lower, and much is copied to win little.
        map_bytes: first size of the index's memory map; address space only, doubled when full.
        max_readers: reader slots of the index, fixed by the first opener.
        group_changes: changes of names taken into one durable commit.
        write_wait_s: how long a change waits for other processes before it fails as busy.
        reserve_bytes, reserve_share: space kept free for deletes and collection when the disk is full; the smaller of
            the two, the share being of the whole filesystem, and 8 MiB at least, or a fifth of a tiny one. What lives
            of a pack is copied before the pack can go, so a pack has to fit in there: see `fitted`.
        open_packs: pack files kept open for reading.
        hash_threads: threads that hash uploads beside the chunking ones.
        upload_life_s: how long a resumable upload waits for its next request; longer than a weekend.
        upload_tombstone_s: how long it is remembered that one was finished or cancelled, for clients that ask again.
    """

    inline_bytes: int = 64 * KIB
    run_bytes: int = 32 * MIB
    direct_bytes: int = 32 * MIB
    segment_chunks: int = 1024
    pack_bytes: int = 512 * MIB
    zstd_level: int = 3
    zstd_min_saving: float = 0.10
    compact_share: float = 0.40
    map_bytes: int = 16 * GIB
    max_readers: int = 4096
    group_changes: int = 256
    write_wait_s: float = 30.0
    reserve_bytes: int = 768 * MIB
    reserve_share: float = 0.05
    open_packs: int = 256
    hash_threads: int = 4
    upload_life_s: float = 7 * 86400.0
    upload_tombstone_s: float = 3600.0

    def __post_init__(self) -> None:
        """Refuse what the formats on disk cannot hold: 32-bit offsets in packs, 16-bit counts in segments."""
        if self.pack_bytes + self.run_bytes > 3 * GIB or self.segment_chunks > MOST_SEGMENT_CHUNKS:
            raise ValueError("a pack ends at 4 GiB and a segment at 65,535 chunks: choose smaller settings")

    def reserve(self, whole: int) -> int:
        """Return how many bytes are kept free of a filesystem of so many."""
        share = max(int(whole * self.reserve_share), min(_LEAST_RESERVE, whole // 5)) if self.reserve_share else 0
        return min(self.reserve_bytes, share)

    def fitted(self, whole: int) -> EngineSettings:
        """Return these for a filesystem of so many bytes: any pack can be emptied into what is kept free of it.

        A pack ends a run after its limit at the latest. What is left is for the index and the journal.
        """
        reserve = self.reserve(whole)
        if not reserve:
            return self
        pack_bytes, run_bytes = max(reserve * 2 // 3, _LEAST_PACK), max(reserve // 16, _LEAST_RUN)
        return replace(self, pack_bytes=min(self.pack_bytes, pack_bytes), run_bytes=min(self.run_bytes, run_bytes))
