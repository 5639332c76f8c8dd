"""A sender to be killed: `python -m tests.support.sender ROOT SESSION KILL_AT`.

Goes on with a resumable upload in requests of 130 KiB, telling on stdout how much is safe after each, and ends it;
kills itself, as `kill -9` would, at its n-th disk operation.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cas import Missing, Store
from tests.crash.test_sessions import CONTENT, STEP, finish
from tests.support.engine import SMALL
from tests.support.writer import MortalDisk, tell


def main(root: str, session: str, kill_at: str) -> None:
    """Send until done or dead."""
    with Store.open(Path(root), SMALL, create=True, disk=MortalDisk(kill_at)) as store:
        try:
            while (start := store.resume(int(session)).size) + STEP < len(CONTENT):
                with store.resume(int(session)) as upload:
                    upload.write(CONTENT[start : start + STEP])
                    tell("safe", str(upload.suspend()))
            finish(store, "sent")
        except Missing:  # finished by the one before, who did not live to tell
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
