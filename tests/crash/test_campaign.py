"""The quick part of the crash campaign; `make crash` is the long one (I1 to I4, I8)."""

from __future__ import annotations

import pytest

from cas import CasError
from tests.crash.campaign import Tally, run


@pytest.mark.parametrize("seed", range(8))
def test_every_acknowledged_push_outlives_cuts_faults_collections_and_rebuilds(seed: int) -> None:
    """Whatever the seed brings, what was acknowledged is equal and the deep check finds nothing."""
    run(seed, Tally())


def test_the_campaign_catches_a_store_that_does_not_sync() -> None:
    """The campaign is no ornament: take the syncs out and some round breaks a promise."""
    with pytest.raises((AssertionError, CasError, ExceptionGroup)):
        _forgetful_rounds()


def _forgetful_rounds() -> None:
    for seed in range(30):
        run(seed, Tally(), honest=False)
