"""What can go wrong with somebody else's folder: as a whole, or with one thing in it.

Knows no exit code. What goes wrong in the store itself is the engine's to say, and ends the work.
"""

from __future__ import annotations


class PortingError(Exception):
    """The folder as a whole will not do; str(error) is one sentence for the operator."""


class NotThatKind(PortingError):
    """The folder is not laid out as was said. Point at another one, or name another kind."""


class NothingToExport(PortingError):
    """There is no such repository or tag. Name one that is there."""


class CannotWrite(PortingError):
    """The system refuses to write there. Nothing is lost; mend that and call it again."""


class Unusable(Exception):
    """One thing in the folder is missing, damaged or not allowed; the rest goes on without it."""
