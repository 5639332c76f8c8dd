"""Where the command begins: until a command is at work, Ctrl-C ends the process by its signal, without a traceback.

Layer: tools. Loads nothing before that is so.
"""

from __future__ import annotations

import signal
import sys
from typing import Final

# They give way to those that serve from their first moment: to load takes longer than much of what they do.
_GIVING_WAY: Final = frozenset({"backup", "fsck", "gc"})
_ASKING: Final = frozenset({"-h", "--help"})  # a person, who waits


def main() -> None:
    """Run the command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where whoever started us has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    words = sys.argv[1:]
    if _GIVING_WAY.intersection(words[:1]) and _ASKING.isdisjoint(words):
        from tools.priority import giving_way  # noqa: PLC0415 - see above

        giving_way(lambda: _load(words[0]))
    from tools.main import main as run  # noqa: PLC0415 - takes a while, in which somebody may change their mind

    run()


def _load(name: str) -> None:
    from tools.main import load  # noqa: PLC0415 - see above

    load(name)
