"""Damage is noticed, named and contained, and heals when somebody pushes the same content again (I3, I9)."""

# ruff: noqa: SLF001 - what a promise rests on is looked at inside, not only from the front

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cas import Damaged, Digest, Store, rebuild_index
from cas.extent import Codec, Extent
from cas.finding import REPAIR
from cas.index import Edit
from cas.records import HEADER_SIZE, ChunkRef, Segment, decode_header, encode_header
from cas.tables import ChunkRow, PackRow
from cas.view import View
from tests.support.engine import KIB, MIB, SMALL, file_ranges, flip, noise, opened, packs_of, prose, push, read


def chunks_of(store: Store, digest: Digest) -> list[tuple[ChunkRef, ChunkRow]]:
    """A blob's chunks and where they lie, from the chunk list."""

    def look(view: View) -> Iterator[tuple[ChunkRef, ChunkRow]]:
        blob = view.blob(digest)
        assert blob is not None
        for stretch in view.segments(blob.recipe):
            for ref in stretch.refs:
                row = view.chunk(ref)
                assert row is not None
                yield ref, row

    return store._parts.index.read(lambda view: list(look(view)))


def spoil(store: Store, root: Path, extent: Extent) -> None:
    """Flip a bit in the middle of a stored chunk."""
    flip(Path(store._parts.layout.pack(extent.pack)), extent.offset + extent.stored // 2)


class TestBitFlips:
    """One wrong bit in a pack."""

    @pytest.mark.parametrize("where", ["first", "last"])
    def test_a_flipped_bit_in_a_frame_is_never_served(self, where: str, tmp_path: Path) -> None:
        """The reader gives what precedes it and then Damaged, naming blob, pack and place."""
        data = prose(MIB)
        with opened(tmp_path) as store:
            digest = push(store, "text", data)
            _, row = chunks_of(store, digest)[0 if where == "first" else -1]
            assert row.extent.codec is Codec.ZSTD
            spoil(store, tmp_path, row.extent)
            served = b""
            place = f"pack {row.extent.pack:016x}, byte {row.extent.offset}"
            named = f"blob {digest} is damaged: .*{place}.*{REPAIR}"
            with store.reader(digest) as reader, pytest.raises(Damaged, match=named):  # noqa: PT012 - in mid-way
                for piece in reader.pieces():
                    assert isinstance(piece, bytes)
                    served += piece
            assert data.startswith(served)
            assert len(served) < len(data)

    @pytest.mark.parametrize("kind", ["text", "noise"])
    def test_pushing_the_same_content_again_heals_a_flipped_bit(self, kind: str, tmp_path: Path) -> None:
        """A damaged chunk is written anew, because a dedup hit is taken only after comparing."""
        data = prose(MIB) if kind == "text" else noise(6 * MIB)
        with opened(tmp_path) as store:
            digest = push(store, "a", data)
            for _, row in chunks_of(store, digest)[1::3]:
                spoil(store, tmp_path, row.extent)
            assert push(store, "b", data) == digest
            assert read(store, digest) == data
        with opened(tmp_path) as store:
            assert read(store, digest) == data

    @pytest.mark.parametrize("kind", ["text", "noise"])
    def test_a_blob_heals_also_where_another_blob_healed_the_shared_chunk_before(
        self, kind: str, tmp_path: Path
    ) -> None:
        """Then nothing need be written, and still its recipe has to let go of the damaged chunk."""
        common = prose(600 * KIB) if kind == "text" else noise(6 * MIB)
        one, two = common + noise(300 * KIB, 1), common + noise(300 * KIB, 2)
        with opened(tmp_path) as store:
            push(store, "one", one)
            push(store, "two", two)
            shared = dict(chunks_of(store, Digest.of(one))).keys() & dict(chunks_of(store, Digest.of(two))).keys()
            assert shared
            for ref, row in chunks_of(store, Digest.of(one)):
                if ref in shared:
                    spoil(store, tmp_path, row.extent)
            push(store, "one again", one)
            push(store, "two again", two)
            assert [read(store, Digest.of(data)) == data for data in (one, two)] == [True, True]

    def test_healing_survives_a_rebuild(self, tmp_path: Path) -> None:
        """The packs hold both recipes; the later one stands."""
        data = prose(MIB)
        with opened(tmp_path) as store:
            digest = push(store, "a", data)
            for _, row in chunks_of(store, digest):
                spoil(store, tmp_path, row.extent)
            push(store, "a", data)
        shutil.rmtree(tmp_path / "index")
        rebuild_index(tmp_path, SMALL)
        with opened(tmp_path) as store:
            assert read(store, digest) == data


class TestLostPacks:
    """A pack file that is gone, or cut short."""

    @pytest.mark.parametrize("kind", ["text", "noise"])
    def test_a_lost_pack_is_damage_and_heals(self, kind: str, tmp_path: Path) -> None:
        """Damaged instead of a short or wrong answer; a push of the same content repairs it."""
        data = prose(MIB) if kind == "text" else noise(3 * MIB)
        with opened(tmp_path) as store:
            digest = push(store, "a", data)
        lost = {row.extent.pack for _, row in chunks_of_closed(tmp_path, digest)}
        for path in packs_of(tmp_path):
            if int(path.stem, 16) in lost:
                path.unlink()
        with opened(tmp_path) as store:
            with pytest.raises(Damaged, match=f"a chunk of it is missing; {REPAIR}"):
                read(store, digest)
            push(store, "a", data)
            assert read(store, digest) == data

    def test_a_pack_cut_short_is_damage(self, tmp_path: Path) -> None:
        """A read past the end is Damaged, never short; a push of the same content repairs it."""
        data = noise(3 * MIB)
        with opened(tmp_path) as store:
            digest = push(store, "a", data)
            _, row = chunks_of(store, digest)[-1]
            path = Path(store._parts.layout.pack(row.extent.pack))
            path.chmod(0o640)
            with path.open("r+b") as file:
                file.truncate(row.extent.offset + 10)
            with pytest.raises(Damaged, match=r"ends .* bytes early"):
                read(store, digest)
            push(store, "a", data)
            assert read(store, digest) == data

    def test_a_file_that_is_another_pack_is_not_read_from(self, tmp_path: Path) -> None:
        """Two packs that were exchanged are as good as gone: what one has is no answer to who asks for the other."""
        in_one_pack = replace(SMALL, pack_bytes=4 * MIB)
        with opened(tmp_path, in_one_pack) as store:
            first = push(store, "a", noise(200 * KIB, 1))
        with opened(tmp_path, in_one_pack) as store:
            second = push(store, "b", noise(200 * KIB, 2))
        one, other = sorted(packs_of(tmp_path), key=lambda path: path.stat().st_size)[-2:]
        one.rename(tmp_path / "aside")
        other.rename(one)
        (tmp_path / "aside").rename(other)
        with opened(tmp_path) as store:
            for digest in (first, second):
                with pytest.raises(Damaged, match=f"blob {digest} is damaged: a chunk of it is missing; {REPAIR}"):
                    read(store, digest)
            store._parts.committer.run(lambda _edit, _draft: None)  # they are marked now
            assert store.stats().doubted == 2

    def test_a_chunk_without_a_row_is_damage(self, tmp_path: Path) -> None:
        """Also where the recipe has no extents to try: no hint is not an empty blob."""
        data = prose(MIB)
        with opened(tmp_path) as store:
            digest = push(store, "a", data)
            first, _ = chunks_of(store, digest)[0]

            def forget(edit: Edit) -> None:
                blob = edit.blob(digest)
                assert blob is not None
                for stretch in edit.segments(blob.recipe):
                    edit.put_segment(Segment(blob.recipe, stretch.start, stretch.refs), [])
                edit._tx.delete("chunks", first.key + first.salt.to_bytes(4, "big"))

            store._parts.committer.run(lambda edit, _: forget(edit))
            with pytest.raises(Damaged, match="a chunk of it is missing"):
                read(store, digest)

    def test_a_moved_pack_is_read_through_the_chunk_list(self, tmp_path: Path) -> None:
        """Copied under a new id, chunk rows repointed, the old file gone: the stale extents are seen through."""
        text, random_ = prose(MIB), noise(3 * MIB)
        with opened(tmp_path) as store:
            digests = push(store, "text", text), push(store, "noise", random_)
        with opened(tmp_path) as store:
            for path in packs_of(tmp_path):
                move_pack(store, int(path.stem, 16))
            assert read(store, digests[0]) == text
            assert read(store, digests[1]) == random_
            assert file_ranges(store, digests[1]) != []

    def test_a_reader_under_way_keeps_its_packs_open(self, tmp_path: Path) -> None:
        """A pack unlinked behind a reader's back is still there for it (I4)."""
        data = noise(3 * MIB)
        with opened(tmp_path) as store:
            digest = push(store, "a", data)
            with store.reader(digest) as reader:
                ranges = list(reader.pieces())
                for path in packs_of(tmp_path):
                    path.unlink()
                assert b"".join(bytes(reader._load(piece)) for piece in ranges) == data  # type: ignore[arg-type]


def chunks_of_closed(root: Path, digest: Digest) -> list[tuple[ChunkRef, ChunkRow]]:
    """As `chunks_of`, of a store that is not open."""
    with opened(root) as store:
        return chunks_of(store, digest)


def move_pack(store: Store, old: int) -> None:
    """Do to a pack what compaction will do."""
    layout, new = store._parts.layout, old ^ 0xFFFF
    data = layout.pack(old).read_bytes()
    header = decode_header(data)
    assert header is not None
    layout.pack(new).write_bytes(encode_header(replace(header, pack=new)) + data[HEADER_SIZE:])

    def repoint(edit: Edit) -> None:
        row = edit.pack(old)
        assert row is not None
        edit.put_pack(PackRow(new, row.state, row.role, row.owner, row.committed))
        for key, _ in list(edit.dump("chunks")):
            salt = int.from_bytes(key[16:], "big")
            for chunk in edit.chunks([key[:16]])[0]:
                if chunk.salt == salt and chunk.extent.pack == old:
                    place = chunk.extent
                    moved = Extent(new, place.offset, place.stored, place.raw, place.codec)
                    edit.put_chunk(ChunkRef(key[:16], salt, place.raw), moved)

    store._parts.committer.run(lambda edit, _: repoint(edit))
    layout.pack(old).unlink()
