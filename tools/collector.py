"""One collection on schedule, in a process of its own; see `apart`.

Layer: tools.
"""

from __future__ import annotations

from cas import Store
from tools import apart, exits
from tools.keeping import collect_if_due
from tools.order import Order


def main() -> None:
    """Collect as a worker ordered."""
    apart.main(_work)


def _work(store: Store, order: Order) -> int:
    collect_if_due(store, order.keeping)
    return exits.OK
