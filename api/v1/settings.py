"""Every limit and choice that only Registry v1 has: unit, default, reason, and what lies past it (I10)."""

from __future__ import annotations

from dataclasses import dataclass

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class V1Settings:
    """Tunables of the v1 routes.

    Attributes:
        platform: `os/architecture[/variant]`: which image of an index v1 clients get, who cannot choose. Nearly all
            of them run on this one.
        endpoints: `host[:port]` told to clients as the place to push to and pull from, several separated by
            commas. None is where the client came to, which is right unless this is the index of another registry.
        token_s: how long a token is good for. A push carries one token from beginning to end, so it must span
            the longest push.
        vouched_s: in `token` mode, how long the index's word for a token is good; so long a right that it takes
            back may still be used.
        index_timeout_s: in `token` mode, silence of the index. Past it: 503.
        max_chain: images in an ancestry. Engines stack no more than 127 layers. Past it: 400.
        max_unpacked_bytes: unpacked bytes read from a layer to list it, to verify a tarsum, or to show it to the
            other generation of clients, so that a small archive cannot keep a thread busy for hours. Past it: 400,
            or the image is not there for those.
        max_entries: archive entries whose digests a tarsum keeps in memory, about 200 bytes each. Past it:
            400.
        max_listing_bytes: a file listing, which is held in memory whole. Past it: 400.
        unpackers: layers unpacked at the same time by one worker, and as many again for the other generation's
            clients; each keeps a core busy. Past it: requests wait for their turn.
    """

    platform: str = "linux/amd64"
    endpoints: str | None = None
    token_s: int = 24 * 3600
    vouched_s: float = 60.0
    index_timeout_s: float = 10.0
    max_chain: int = 127
    max_unpacked_bytes: int = 16 * GIB
    max_entries: int = 250_000
    max_listing_bytes: int = 32 * MIB
    unpackers: int = 1
