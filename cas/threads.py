"""Work handed to a pool of threads.

Layer: L1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cas.errors import Closed

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")


def submit(pool: ThreadPoolExecutor, work: Callable[..., T], *arguments: object) -> Future[T]:
    """Hand work to a pool.

    Raises:
        Closed: the store was closed.
    """
    try:
        return pool.submit(work, *arguments)
    except RuntimeError:  # how a pool says that it was shut down
        raise Closed("this store was closed; open it anew") from None
