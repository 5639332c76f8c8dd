"""What can go wrong in the command itself, before or around the engine.

Layer: tools. Knows no exit code (`tools/exits.py` has the table) and prints nothing.
"""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot do what was asked; str(error) is one sentence for the operator."""


class BadAddress(CommandError):
    """What --bind names is no address of this machine. The operator's to fix."""


class AddressInUse(CommandError):
    """Somebody else listens there. Stop them, or choose another port."""


class AddressForbidden(CommandError):
    """The system refuses this port to this user. Choose one above 1023, or give the right."""


class OpenToAll(CommandError):
    """Without accounts, only this machine may be served unless the operator says otherwise."""


class Contradiction(CommandError):
    """Settings that are right by themselves do not go together. The operator's to fix."""


class CannotLog(CommandError):
    """What --access-log names cannot be written. The operator's to fix."""


class NotOneRepository(CommandError):
    """A pattern, a tag or an image stands where one repository is needed. Name it."""


class WorkerFailed(CommandError):
    """A worker ended before it could serve; its own message came before this one."""

    def __init__(self, code: int) -> None:
        super().__init__("a worker ended while starting; see the message above")
        self.code = code
