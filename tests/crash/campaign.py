"""The crash campaign: `make crash [ROUNDS=500] [SERVERS=50] [SEED=1]`; a round's seed replays it.

Engine rounds are a store in this process (see `engine_round`), server rounds real servers (see `server_round`); every
fourth of these has a small disk, where the kernel lets us mount one. The first broken promise ends the campaign.
"""

from __future__ import annotations

import faulthandler
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.crash.engine_round import EngineRound
from tests.crash.server_round import EVENTS, ServerRound
from tests.crash.tally import DAMAGE, FAULT, KILL, ROUNDS, Tally
from tests.support.processes import can_mount, in_namespace

ENGINE_ROUND_S: Final = 120  # a round takes a second; one that hangs is ended with all stacks
SERVER_ROUND_S: Final = 600  # a round takes ten seconds, on a busy machine a minute
SMALL_DISKS: Final = 4  # one round of so many has one
_MEMORY: Final = Path("/dev/shm")  # syncs that cost nothing: what they are worth is for `ForgetfulDisk` to say


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder for one round, in memory where there is such a place; one that broke a promise leaves it."""
    place = Path(tempfile.mkdtemp(prefix="cas-campaign-", dir=_MEMORY if _MEMORY.is_dir() else None))
    try:
        yield place
    except Exception:
        sys.stderr.write(f"\nwhat is left of it is in {place}\n")
        raise
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    shutil.rmtree(place)


def engine_round(seed: int, tally: Tally, *, honest: bool = True) -> None:
    """Run one round against the engine."""
    with folder() as place:
        EngineRound(place, seed, tally, honest=honest).run()
    tally.add(ROUNDS, "engine")


def server_round(seed: int, tally: Tally, *, small_disk: bool = False, events: int = EVENTS) -> None:
    """Run one round against real servers."""
    with folder() as place:
        ServerRound(place, seed, tally, small_disk=small_disk, events=events).run()
    tally.add(ROUNDS, "server, small disk" if small_disk else "server")


def play(rounds: int, servers: int, first: int, *, mounts: bool) -> Tally:
    """Run rounds of both kinds, each kind from the same first seed on."""
    tally = Tally()

    def servers_round(seed: int) -> None:
        server_round(seed, tally, small_disk=mounts and seed % SMALL_DISKS == 0)

    def campaign(count: int, limit_s: int, run: Callable[[int], None], replay: str) -> None:
        for seed in range(first, first + count):
            faulthandler.dump_traceback_later(limit_s, exit=True)
            sys.stderr.write(f"\r{tally.total(ROUNDS) + 1} of {rounds + servers}, {replay.format(seed)} ")
            try:
                run(seed)
            except KeyboardInterrupt:
                sys.stderr.write(f"\nended during seed {seed}\n{tally}\n")
                raise
            except BaseException:
                sys.stderr.write(f"\nseed {seed} broke a promise; replay: make crash {replay.format(seed)}\n{tally}\n")
                raise
            finally:
                faulthandler.cancel_dump_traceback_later()

    campaign(rounds, ENGINE_ROUND_S, lambda seed: engine_round(seed, tally), "ROUNDS=1 SERVERS=0 SEED={}")
    campaign(servers, SERVER_ROUND_S, servers_round, "ROUNDS=0 SERVERS=1 SEED={}")
    return tally


def main() -> None:
    """Run ROUNDS engine rounds and SERVERS server rounds from SEED on, and print what was done."""
    rounds, servers, first = map(int, sys.argv[1:4])
    inside = len(sys.argv) > 4
    if servers and not inside and can_mount():
        ended = subprocess.run(
            in_namespace([sys.executable, "-m", "tests.crash.campaign", *sys.argv[1:4], "inside"]), check=False
        )
        sys.exit(ended.returncode)
    began = time.monotonic()
    tally = play(rounds, servers, first, mounts=inside)
    small = "" if inside or not servers else "; no round with a full disk: mounting is not permitted here"
    kinds = f"{tally.total(KILL):,} kills, {tally.total(FAULT):,} faults, {tally.total(DAMAGE):,} damaged packs"
    seeds = f"seeds {first} to {first + max(rounds, servers) - 1}"
    sys.stdout.write(f"\n{tally}\n0 losses after {kinds} in {time.monotonic() - began:.0f} s; {seeds}{small}\n")


if __name__ == "__main__":
    main()
