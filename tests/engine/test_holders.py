"""Which names hold a blob: found from the blob, of one kind, in order, and no more of them than asked for."""

from __future__ import annotations

from pathlib import Path

from cas import Digest, Name, Names, Record, Store
from tests.support.engine import opened, push


def hold(store: Store, kind: str, path: str, digest: Digest) -> None:
    store.change(lambda names: names.put(Name(kind, path), Record(b"", (digest,))))


def test_names_that_hold_a_blob_are_found_by_kind(tmp_path: Path) -> None:
    """In byte order, from the first on; neighbours of other kinds, whichever side they sort on, are not counted."""
    with opened(tmp_path) as store:
        digest, other = push(store, "one", b"shared"), push(store, "two", b"other")
        for kind in ("link", "a", "lin", "linkz", "z"):
            for path in ("c", "a", "b/d"):
                hold(store, kind, path, digest)
        hold(store, "link", "0", other)
        found = store.read(lambda reads: [reads.holders("link", digest, limit) for limit in range(5)])
        assert found == [[], ["a"], ["a", "b/d"], ["a", "b/d", "c"], ["a", "b/d", "c"]]
        assert store.read(lambda reads: reads.holders("m", digest, 9)) == []
        assert store.read(lambda reads: reads.holders("link", Digest.of(b"unknown"), 9)) == []


def test_a_change_sees_who_holds_a_blob_by_then(tmp_path: Path) -> None:
    """Its own edits included, and nothing that was deleted."""
    with opened(tmp_path) as store:
        digest = push(store, "one", b"shared")
        hold(store, "link", "a", digest)

        def edit(names: Names) -> list[str]:
            names.put(Name("link", "b"), Record(b"", (digest,)))
            names.delete(Name("link", "a"))
            return names.holders("link", digest, 9)

        assert store.change(edit) == ["b"]
