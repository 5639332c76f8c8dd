"""What damage takes from a store of a test's own process."""

from __future__ import annotations

from cas import Digest, Store
from tests.engine.test_damage import chunks_of, spoil


def lose(store: Store, *digests: Digest | str) -> None:
    """Damage blobs and let repair set that aside; those that lie in the index are declared lost."""
    found = [Digest.parse(str(each)) for each in digests]
    for digest in found:
        blob = store._parts.index.read(lambda view, digest=digest: view.blob(digest))  # type: ignore[misc]
        assert blob is not None
        if blob.inline is None:
            spoil(store, store._parts.layout.root, chunks_of(store, digest)[0][1].extent)
    store.repair()
    for each in found:
        store._parts.index.write(lambda edit, each=each: edit.lose_blob(each))  # type: ignore[misc]
    assert not any(is_here(store, each) for each in found)


def is_here(store: Store, digest: Digest | str) -> bool:
    return store.read(lambda reads: reads.stat(Digest.parse(str(digest)))) is not None
