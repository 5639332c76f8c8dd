"""What is counted of pushes and pulls, whichever way their bytes take."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from api.counts import Counts, shared_memory
from api.zerocopy import sent
from tests.wire.v2.pushing import MIB, new_data, pushing


@pytest.mark.usefixtures("all_in_memory")
@pytest.mark.parametrize("size", [1000, 300_000, 9 * MIB])
def test_a_layer_is_counted_to_the_byte_also_by_heart(tmp_path: Path, size: int) -> None:
    """As long as it is, each time it goes out and once as it comes in."""
    fd = shared_memory(1)
    counts, repeats = Counts(fd, 0), sent.repeats
    with pushing(tmp_path / "root", counts=counts) as registry, closing(registry.client()) as client:
        digest = client.push("a/b", data := new_data(size))
        for _ in range(3):
            assert client.blob("a/b", digest).content == data
    os.close(fd)
    assert sent.repeats - repeats >= 2
    found = {each.method: each for each in counts.sums() if each.protocol == "v2"}
    assert (found["GET"].answers[200], found["GET"].sent_bytes) == (3, 3 * size)
    assert sum(each.received_bytes for each in found.values()) == size
    assert not any(each.under_way for each in found.values())
