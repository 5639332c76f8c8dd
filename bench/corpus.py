"""What is pushed and pulled: bytes from a seed, so that every server gets the same and a run can be repeated.

Files lie on a tmpfs where there is one: reading them must not load the disk that is measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bench.load import MIB, Slice

_NOTHING = bytes(MIB)


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes and their name."""

    content: Slice
    digest: str

    @property
    def size(self) -> int:
        return self.content.size


class Noise:
    """Random bytes from a number, at the speed of a cipher."""

    def __init__(self, seed: int) -> None:
        self._stream = Cipher(algorithms.AES(seed.to_bytes(16, "big")), modes.CTR(bytes(16))).encryptor()

    def take(self, size: int) -> bytes:
        return self._stream.update(_NOTHING[:size])

    def blocks(self, size: int) -> Iterator[bytes]:
        for at in range(0, size, MIB):
            yield self.take(min(MIB, size - at))


class Corpus:
    """Makes blobs; `digest` is the SHA-256 over the names of all it made, in order."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self._folder, self._noise, self._made = folder, Noise(seed), 0
        self._running = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._running.hexdigest()

    def noise(self, size: int) -> Blob:
        """Bytes with nothing to compress and nothing to share."""
        return self.blob(self._noise.blocks(size))

    def text(self, size: int) -> Blob:
        """Digits: they compress to a little more than half, and no stretch comes twice."""
        return self.blob(block.hex().encode() for block in self._noise.blocks(size // 2))

    def many(self, count: int, size: int) -> list[Blob]:
        """So many blobs of a size, all in one file."""
        path, made = self._path(), []
        with path.open("wb") as file:
            for number in range(count):
                data = self._noise.take(size)
                file.write(data)
                made.append(Blob(Slice(path, size, number * size), self._name(data)))
        return made

    def woven(self, sources: list[Blob], stretch: int) -> Blob:
        """A blob of stretches of other blobs, taken in turns: deduplication scatters it."""

        def stretches() -> Iterator[bytes]:
            for at in range(0, sources[0].size, stretch):
                for source in sources:
                    with source.content.file.open("rb") as file:
                        file.seek(source.content.start + at)
                        yield file.read(min(stretch, source.size - at))

        return self.blob(stretches())

    def blob(self, blocks: Iterator[bytes]) -> Blob:
        """Write a blob."""
        path, running, size = self._path(), hashlib.sha256(), 0
        with path.open("wb") as file:
            for block in blocks:
                file.write(block)
                running.update(block)
                size += len(block)
        digest = f"sha256:{running.hexdigest()}"
        self._running.update(digest.encode())
        return Blob(Slice(path, size), digest)

    def drop(self, *blobs: Blob) -> None:
        """Take back the memory of what is no longer needed."""
        for file in {blob.content.file for blob in blobs}:
            file.unlink(missing_ok=True)

    def _path(self) -> Path:
        self._made += 1
        return self._folder / f"{self._made}"

    def _name(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._running.update(digest.encode())
        return digest


@contextmanager
def corpus(seed: int = 1) -> Iterator[Corpus]:
    """A corpus in memory, gone at the end."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(dir=memory, prefix="cas-bench-") as folder:
        yield Corpus(Path(folder), seed)
