"""Streams to cut: one of each nature, built from fixed seeds, and a driver that feeds them in pieces."""

from __future__ import annotations

import functools
import gzip
import io
import random
import tarfile
from collections.abc import Callable, Iterable
from typing import Final

from cas.chunker import LONGEST_WANT, Chunker

KIB: Final = 1024
MIB: Final = 1024 * 1024


def text(size: int, seed: int) -> bytes:
    """Bytes that compress to about half, so that they count as plain."""
    return random.Random(seed).randbytes(-(-size // 2)).hex().encode()[:size]


def tar(files: Iterable[tuple[str, bytes]], *, mtime: float = 0, fmt: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of these files, all of one age."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=fmt) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), mtime  # a fraction makes tarfile write a PAX record
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@functools.cache
def tree(seed: int = 5, count: int = 120) -> list[tuple[str, bytes]]:
    """Files as trees have them: empty and tiny ones, many of some KiB, a few large, one name too long."""
    dice = random.Random(seed)
    sizes = [0, 1, 511, 512, 4095, 4096, 64 * KIB, 64 * KIB + 1, 700 * KIB]
    sizes += [int(2 ** dice.uniform(6, 18)) for _ in range(count)]
    dice.shuffle(sizes)
    names = [f"srv/{number:04}.py" for number in range(len(sizes))]
    names[3] = "srv/" + "deep/" * 40 + "long.py"
    return [(name, text(size, seed + n)) for n, (name, size) in enumerate(zip(names, sizes, strict=True))]


def small_files() -> bytes:
    """A run of headers and small members that is far longer than the largest chunk."""
    return tar((f"etc/{number}", text(300 + number % 3000, number)) for number in range(700))


def long_headers() -> bytes:
    """Monotonous headers of 15 KiB, so that cuts fall at the largest length, and often inside of one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(120):
            member = tarfile.TarInfo(f"lib/{number}")
            member.size, member.pax_headers = 9000 if number % 40 == 39 else 10, {"comment": "c" * 15_000}
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


SAMPLES: Final[dict[str, Callable[[], bytes]]] = {
    "random": lambda: random.Random(1).randbytes(6 * MIB),
    "text": lambda: text(2 * MIB, 2),
    "zeros": lambda: bytes(3 * MIB),
    "gzip": lambda: gzip.compress(text(5 * MIB, 3), compresslevel=1, mtime=0),
    "tar": lambda: tar(tree()),
    "tar-pax": lambda: tar(tree(), mtime=1.5),
    "tar-gnu": lambda: tar(tree(), fmt=tarfile.GNU_FORMAT),
    "tar-small-files": small_files,
    "tar-long-headers": long_headers,
    "tar-cut-off": lambda: tar(tree())[: 1 * MIB + 77],
    "short": lambda: b"hello",
    "empty": bytes,
}


@functools.cache
def sample(name: str) -> bytes:
    """One of SAMPLES, built once."""
    return SAMPLES[name]()


def cut(data: bytes, piece_sizes: Iterable[int] = (), *, chunker: Chunker | None = None) -> list[int]:
    """Chunk lengths of a whole stream, fed as the engine feeds it: no offer shorter than wanted.

    The last piece takes what is left. Fails if a chunker that knows its profile sits on a window as
    long as it asked for, or if the window outgrows what a caller is told to provide.
    """
    chunker = chunker or Chunker()
    window, lengths, taken = bytearray(), list[int](), 0
    for size in piece_sizes:
        window += data[taken : taken + size]
        taken += size
        while len(window) >= chunker.wants:
            knew = chunker.profile is not None
            with memoryview(window) as view:
                new = chunker.cut(view, final=False)
            del window[: sum(new)]  # raises BufferError if the chunker kept a view of it
            lengths += new
            assert new or not knew, "a window as long as wanted gave nothing"
        assert len(window) < LONGEST_WANT + size
    with memoryview(bytes(window) + data[taken:]) as view:
        return lengths + chunker.cut(view, final=True)


def parts(data: bytes, lengths: Iterable[int]) -> list[bytes]:
    """The chunks themselves."""
    chunks, start = list[bytes](), 0
    for length in lengths:
        chunks.append(data[start : start + length])
        start += length
    return chunks
