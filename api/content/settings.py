"""Tunables of keeping house: what is removed, when, and how long it can be brought back."""

from __future__ import annotations

from dataclasses import dataclass

DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class KeepingSettings:
    """What a server does by itself, and what `cas gc` takes as old enough.

    Attributes:
        gc_interval_s: how long after one collection a server begins the next; 0 is never.
        gc_grace_s: how long a blob waits for the manifest that names it, and a v1 image for its last part. Builders
            push all night, and clients go by what they were told an hour ago.
        undelete_s: how long what was deleted can be brought back.
        scrub_rate_bytes: how fast a server reads through what it stores, in bytes a second; 0 is never. Slow enough for
            a disk that others need, and more than a TB a day.
        scrub_interval_s: how long after a pack was read through it is read again. Disks lose bits over months.
        scrub_mends: whether what is found damaged is set aside, so that a push heals it, or only said.
    """

    gc_interval_s: float = DAY_S
    gc_grace_s: float = DAY_S
    undelete_s: float = 7 * DAY_S
    scrub_rate_bytes: int = 16 << 20
    scrub_interval_s: float = 30 * DAY_S
    scrub_mends: bool = True
