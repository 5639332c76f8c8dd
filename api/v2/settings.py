"""Every limit that only the v2 protocol has: unit, default, reason, and what lies past it (I10)."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class V2Settings:
    """Tunables of the v2 routes.

    Attributes:
        max_manifest_bytes: a manifest, which is held in memory whole. Clients pull up to 4.19 MiB. Past it: 413.
        max_push_tags: tags set by one push of a manifest, each of which the answer names in a header of its own; the
            standard wants ten at least, and Python's `http.client` reads 100 headers in all. Past it: 414.
        tags_page: tags in one answer, unless the client names fewer; those that read one page only should get all
            there are. Past it: the answer has a link to the next page.
        catalogue_page: repositories in one answer where the client names no number. Past it: the same link.
        max_catalogue_page: repositories in one answer, whatever number the client names. Past it: the same link.
        referrers_page_bytes: a page of referrers; clients stop reading at 4 MiB. Past it: the same link.
    """

    max_manifest_bytes: int = 4 * MIB + 512 * KIB
    max_push_tags: int = 64
    tags_page: int = 10_000
    catalogue_page: int = 100
    max_catalogue_page: int = 1000
    referrers_page_bytes: int = 3 * MIB
