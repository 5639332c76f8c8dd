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
    """

    gc_interval_s: float = DAY_S
    gc_grace_s: float = DAY_S
    undelete_s: float = 7 * DAY_S
