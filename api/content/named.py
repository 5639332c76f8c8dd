"""What a manifest names: every digest that its JSON says anywhere.

More than it needs, perhaps, but never less: what is read here is not removed. Read string by string, so that no
document that ever came in can stop a collection. Pure.
"""

from __future__ import annotations

import re

from api import strict

_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)


def digests(body: bytes) -> set[str]:
    """Return the digests in a manifest that was checked when it was pushed."""
    return {text for text in strict.texts(body) if _DIGEST.fullmatch(text)}
