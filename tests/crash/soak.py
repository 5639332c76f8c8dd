"""The engine's state machine for as long as you like: `make soak MINUTES=10`. Ends at the first broken promise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.crash.test_engine_promises import EngineKeepsItsPromises

BATCH = 100  # runs between two looks at the clock


def counting(machine: type[EngineKeepsItsPromises], count: Callable[[], None]) -> type[EngineKeepsItsPromises]:
    """Return the machine with each run's end counted."""

    class Counted(machine):  # type: ignore[valid-type,misc]
        def teardown(self) -> None:
            super().teardown()
            count()

    return Counted


def main() -> None:
    minutes = float(sys.argv[1])
    began, runs = time.monotonic(), 0

    def count() -> None:
        nonlocal runs
        runs += 1

    search = settings(
        max_examples=BATCH,
        stateful_step_count=30,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    while (spent := time.monotonic() - began) < minutes * 60:
        run_state_machine_as_test(counting(EngineKeepsItsPromises, count), settings=search)
    sys.stdout.write(f"{runs} runs of up to 30 steps in {spent / 60:.1f} minutes: every promise was kept\n")


if __name__ == "__main__":
    main()
