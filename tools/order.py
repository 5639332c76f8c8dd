"""What a supervisor tells a worker, and the one word it hears back.

Layer: tools, pure. Apart from both, so that a supervisor does not load the application.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.access.settings import AccessSettings, Mode
from api.config import HttpSettings
from api.content.settings import KeepingSettings
from api.tls import Files
from api.v1.settings import V1Settings
from api.v2.settings import V2Settings
from cas import EngineSettings

READY: Final = b"ready\n"
LOG_FORMAT: Final = "%(asctime)s %(levelname)s [%(process)d] %(message)s"


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker must know; sent as one JSON line, since a command line can be read by every user.

    Attributes:
        access_log: a file, or a descriptor to inherit.
        place: where this worker has its own in memory that all of them share, the first being 0.
        balance: descriptor of the memory in which workers say how busy they are.
        counts: descriptor of the memory in which they count requests, if they do.
        monitors: descriptors of the sockets where monitors are told what was counted.
    """

    root: Path
    sockets: tuple[int, ...]
    log_level: str
    engine: EngineSettings
    http: HttpSettings
    v1: V1Settings
    v2: V2Settings
    access: AccessSettings
    keeping: KeepingSettings
    tls: Files | None = None
    access_log: str | int | None = None
    place: int = 0
    balance: int | None = None
    counts: int | None = None
    monitors: tuple[int, ...] = ()

    @property
    def inherited(self) -> tuple[int, ...]:
        """The descriptors that a worker needs."""
        others = (fd for fd in (self.access_log, self.balance, self.counts) if isinstance(fd, int))
        return (*self.sockets, *self.monitors, *others)

    def to_line(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), default=os.fspath).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Order:
        told = json.loads(line)
        return cls(
            root=Path(told["root"]),
            sockets=tuple(told["sockets"]),
            log_level=told["log_level"],
            engine=EngineSettings(**told["engine"]),
            http=HttpSettings(**told["http"]),
            v1=V1Settings(**told["v1"]),
            v2=V2Settings(**told["v2"]),
            access=AccessSettings(**told["access"] | {"mode": Mode(told["access"]["mode"])}),
            keeping=KeepingSettings(**told["keeping"]),
            tls=told["tls"] and Files(Path(told["tls"]["cert"]), Path(told["tls"]["key"])),
            access_log=told["access_log"],
            place=told["place"],
            balance=told["balance"],
            counts=told["counts"],
            monitors=tuple(told["monitors"]),
        )
