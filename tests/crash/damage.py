"""Damage at rest: bits flipped in packs, packs cut short; named by the check, put aside, healed by pushes (I9)."""

from __future__ import annotations

import random
from pathlib import Path

from cas import CasError, Depth, Digest, Missing, Name, Names, Record, Staged, Store
from tests.crash.tally import DAMAGE, Tally
from tests.support.engine import flip, packs_of, read, stage

Contents = dict[Digest, bytes]


def spoil_and_mend(store: Store, root: Path, contents: Contents, dice: random.Random, tally: Tally) -> None:
    """Damage one pack of a sound store; see that just this is found, and that a push heals what was lost.

    Args:
        store: open, sound.
        root: where it lies.
        contents: every blob that names hold.
        dice: decides.
        tally: counts.
    """
    records = store.scan("thing")
    named = rot(store, root, contents, dice, tally)
    report = store.repair(Depth.DEEP)
    assert report.left == (), report.left
    assert set(report.lost) <= named
    missing = heal(store, contents, records)
    assert missing == set(report.lost)
    assert list(store.check(Depth.DEEP)) == []


def rot(store: Store, root: Path, contents: Contents, dice: random.Random, tally: Tally) -> set[Digest]:
    """Damage one pack of a sound store; return the blobs that the check names, which are all that suffer."""
    packs = [path for path in packs_of(root) if path.stat().st_size]
    if not packs:
        return set()
    path = dice.choice(packs)
    what = spoil(path, dice)
    found = list(store.check(Depth.DEEP))
    tally.add(DAMAGE, f"{what}, {'named' if found else 'nothing lived there'}")
    assert {f.pack for f in found if f.pack is not None} <= {int(path.stem, 16)}, found
    named = {digest for finding in found for digest in finding.blobs}
    assert wrong(store, contents) <= named, "a blob is not what it was, and the check does not say so"
    return named


def spoil(path: Path, dice: random.Random) -> str:
    """Flip a bit of a pack, or cut its end off; say which."""
    size = path.stat().st_size
    if dice.random() < 0.75:
        flip(path, dice.randrange(size), dice.randrange(8))
        return "bits flipped"
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.truncate(dice.randrange(size))
    return "packs cut short"


def wrong(store: Store, contents: Contents) -> set[Digest]:
    """Return the blobs that do not come out as they went in."""
    found = set()
    for digest, data in contents.items():
        try:
            if read(store, digest) != data:
                found.add(digest)
        except CasError:
            found.add(digest)
    return found


def heal(store: Store, contents: Contents, records: list[tuple[Name, Record]]) -> set[Digest]:
    """Push what is missing once more under its names; return what was."""
    missing = set()
    for digest, data in contents.items():
        try:
            assert read(store, digest) == data, "served, and not what was pushed"
        except Missing:
            missing.add(digest)
            staged = stage(store, data)

            def edit(names: Names, digest: Digest = digest, staged: Staged = staged) -> None:
                names.keep(staged)
                for name, record in records:
                    if digest in record.holds:
                        names.put(name, record)

            store.change(edit)
    return missing
