"""Which tags show a manifest: of many, found before anybody has to wait for it.

A repository may have a hundred thousand tags, and a change that looked at each would keep every other writer waiting
for seconds. So they are looked through in small reads, and the change looks again only at those that were found. It
knows of no others by the repository's mark (see `marks`): whoever lets a tag show a manifest takes that away.
Blocking; no HTTP.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from api.content import marks, tags
from api.content.collect import walk
from api.content.repository import Repository
from cas import Digest, Names, Store

MANY: Final = 1000  # up to here a change looks at all tags by itself: some milliseconds of the writer's time
LOOKS: Final = 3  # while others push, before a deletion lets them wait: so it ends


class SetMeanwhile(Exception):
    """Since the tags were looked through, one may have come to show the manifest: look again."""


@dataclass(frozen=True, slots=True)
class Looked:
    """The tags that showed a manifest, and the mark that stands as long as no others do."""

    tags: tuple[str, ...]
    mark: str


def look(store: Store, repository: Repository, digest: Digest) -> Looked | None:
    """Look a repository's tags through, ahead of a change; None where they are so few that a change can."""
    if len(store.read(lambda reads: reads.paths(tags.TAG, f"{repository}:", limit=MANY))) < MANY:
        return None
    own = secrets.token_hex(8)
    mark = store.change(lambda names: marks.share(names, str(repository), own), frees=True)
    rows = walk(store, tags.TAG, f"{repository}:")
    return Looked(tuple(name.path.partition(":")[2] for name, row in rows if shown(tags.read(row)) == digest), mark)


def listed(names: Names, repository: Repository, digest: Digest, looked: Looked | None) -> list[str]:
    """List the tags that show a manifest now, as part of a change.

    Raises:
        SetMeanwhile: there may be others than were found.
    """
    if looked is None:
        return [tag for tag, its in tags.walk(names, repository) if shown(its) == digest]
    if not marks.stands(names, str(repository), looked.mark):
        raise SetMeanwhile
    return [tag for tag in looked.tags if shown(tags.find(names, repository, tag)) == digest]


def shown(tag: tags.Tag | None) -> Digest | None:
    """Return which manifest a tag shows, be that what was pushed, or what was made of that."""
    return None if tag is None or tag.manifest is None else tag.manifest.digest
