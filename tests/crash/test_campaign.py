"""The quick part of the crash campaign; `make crash` is the long one (I1 to I4, I7 to I9)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from cas import CasError
from tests.crash.campaign import engine_round
from tests.crash.planted import PLANTED
from tests.crash.tally import Tally
from tests.support.processes import can_mount, run_python

SEEDS = (0, 1, 3, 5)
MORE_SEEDS = range(40)  # for a bug that threads hid


@pytest.mark.parametrize("seed", SEEDS)
def test_every_acknowledged_push_outlives_cuts_faults_collections_and_rebuilds(seed: int) -> None:
    """Whatever the seed brings, what was acknowledged is equal and the deep check finds nothing."""
    engine_round(seed, Tally())


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_the_campaign_catches_a_planted_bug(plant: Callable[[], AbstractContextManager[None]]) -> None:
    """The campaign is no ornament: with one of its five foundations taken away a round breaks that passes above."""
    assert PLANTED[plant] in SEEDS
    with plant(), pytest.raises((AssertionError, CasError, ExceptionGroup)):
        _rounds(PLANTED[plant])


def _rounds(first: int) -> None:
    for seed in (first, *MORE_SEEDS):
        engine_round(seed, Tally())


def test_real_servers_keep_their_word() -> None:
    """Killed, filled up and collected under load: what clients were promised is there, and nothing else.

    The full disk is a small filesystem, where the kernel lets us mount one in a namespace of our own.
    """
    run_python(_SERVERS, can_mount(), mounts=can_mount())


_SERVERS = """
import sys
from tests.crash.campaign import server_round
from tests.crash.tally import Tally
server_round(343, Tally(), small_disk=sys.argv[1] == "True", events=3)
"""
