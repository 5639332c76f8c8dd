"""The table of everything that can be set: one row a name, the same for flag, environment and file.

Layer: tools, pure. Knows what a value is for, what it may be and what happens past it. Defaults live with
the engine and the edge; `tools/settings.py` joins the two; `docs/operations.md` shows this table and a test
keeps it there.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from api.config import HttpSettings
from api.v1.settings import V1Settings
from cas import EngineSettings


class Section(StrEnum):
    """Whose setting it is; the heading in `--help`."""

    COMMAND = "Options"
    HTTP = "Limits of the HTTP edge"
    V1 = "Limits and choices of Registry v1"
    ENGINE = "Tunables of the engine"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `past` says what meets whoever goes past it, where there is such a thing."""

    reason: str
    past: str = ""
    least: float = 1
    most: float | None = None


NO_LIMIT = "none"  # how "no limit" is written for the settings that allow it

COMMAND: dict[str, Row] = {
    "root": Row("Folder of the store. `serve` makes one that does not exist yet."),
    "bind": Row("HOST:PORT to listen on. Port 0 takes a free one, told in the ready line."),
    "workers": Row("Processes that serve. Hashing takes a core a push; more than cores gain nothing."),
    "log_level": Row("Least severe message written to stderr: debug, info, warning or error."),
}

HTTP: dict[str, Row] = {
    "max_header_bytes": Row("Request line and headers together.", "431, connection closed", least=1024),
    "max_json_bytes": Row("A JSON body, held in memory whole.", "413", least=1024),
    "max_layer_bytes": Row("A layer's body, never held in memory; `none` is no limit.", "413"),
    "max_connections": Row("Connections of one worker.", "newcomers wait to be accepted"),
    "backlog": Row("Connections waiting for any worker.", "the client's kernel tries again, then times out"),
    "keep_alive_s": Row("An idle connection, and the wait for a request's head.", "connection closed", least=0.1),
    "keep_alive_requests": Row(
        "Requests on one connection, so that connections spread over workers.", "`Connection: close`"
    ),
    "stall_s": Row("A transfer that moves no byte at all; a slow one moves some.", "connection dropped", least=0.1),
    "grace_s": Row("Time for transfers under way once told to stop.", "they are cut", least=0),
    "linger_bytes": Row("Unwanted body read, so that the client sees the answer.", "connection closed", least=0),
    "linger_s": Row("Time for the same.", "connection closed", least=0),
    "send_bytes": Row("Given to a socket by one sendfile: fairness between clients.", least=4096),
    "threads": Row("Threads for engine calls of one worker.", "calls wait for their turn"),
    "cold_threads": Row("Threads that may wait for a disk in sendfile.", "cold transfers wait, warm ones never"),
    "readahead_bytes": Row("How far the kernel reads ahead of a cold transfer.", least=0),
}

ENGINE: dict[str, Row] = {
    "inline_bytes": Row(
        "Blobs up to this size live in the index: one look-up reads them.", "stored in a pack", least=0, most=1 << 20
    ),
    "run_bytes": Row(
        "Appended by an upload before a commit record; long runs are long extents.", least=64 * 1024, most=1 << 30
    ),
    "segment_chunks": Row("Chunks in a recipe's segment; bounds the memory of an upload and a read.", most=32_768),
    "pack_bytes": Row("A pack this large is sealed.", "the next pack begins", least=1024 * 1024, most=2 << 30),
    "zstd_level": Row("Effort for chunks of compressible blobs.", most=22),
    "zstd_min_saving": Row("Share that must go for a chunk to be kept compressed.", "kept raw", least=0, most=1),
    "map_bytes": Row("First size of the index's memory map: address space only.", "doubled", least=1024 * 1024),
    "max_readers": Row("Reader slots of the index, fixed by the first process that opens it."),
    "group_changes": Row("Changes of names in one durable commit.", "the next commit takes them"),
    "write_wait_s": Row("A change's wait for other processes.", "503 with Retry-After; exit code 75", least=0.1),
    "reserve_bytes": Row("Kept free for deletes and collection on a full disk.", "507", least=0),
    "reserve_share": Row("The same as a share of the filesystem; the smaller counts.", "507", least=0, most=0.5),
    "open_packs": Row("Pack files kept open for reading.", "the least used is closed"),
    "hash_threads": Row("Threads that hash uploads beside the chunking ones."),
}

V1: dict[str, Row] = {
    "v1_public_host": Row("host[:port] told to clients; `none` takes each request's own Host header."),
    "v1_standalone": Row("What _ping says; true makes clients send a password where they have one."),
    "v1_token_s": Row("How long a token is good for; it must span the longest push.", least=60),
    "v1_max_chain": Row("Images in an ancestry; engines stack no more than 127.", "400"),
    "v1_max_unpacked_bytes": Row("Unpacked bytes read from a layer to list or verify it.", "400"),
    "v1_max_entries": Row("Archive entries whose digests a tarsum keeps in memory.", "400"),
    "v1_max_listing_bytes": Row("A file listing, held in memory whole.", "400"),
    "v1_unpackers": Row("Layers unpacked at once by one worker; each takes a core.", "requests wait for their turn"),
}


@dataclass(frozen=True, slots=True)
class Group:
    """The settings of one section, and the class of values they fill; a prefix keeps protocols apart."""

    rows: dict[str, Row]
    values: type | None = None
    prefix: str = ""

    def defaults(self) -> dict[str, Any]:
        """Default of every setting, by the name operators use."""
        fields = dataclasses.fields(self.values) if self.values else ()
        return {self.prefix + field.name: field.default for field in fields}

    def fill(self, told: dict[str, Any]) -> Any:
        """Make the values from what was told."""
        assert self.values is not None
        return self.values(**{name.removeprefix(self.prefix): told[name] for name in self.rows})


GROUPS: dict[Section, Group] = {
    Section.COMMAND: Group(COMMAND),
    Section.HTTP: Group(HTTP, HttpSettings),
    Section.V1: Group(V1, V1Settings, "v1_"),
    Section.ENGINE: Group(ENGINE, EngineSettings),
}
ROWS: dict[str, Row] = {name: row for group in GROUPS.values() for name, row in group.rows.items()}
DEFAULTS: dict[str, Any] = {name: value for group in GROUPS.values() for name, value in group.defaults().items()}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    return "CAS_" + name.upper()


def unit(name: str) -> str:
    """Tell what a value is: by its name where that ends in a unit (a house rule), else by its default."""
    default = DEFAULTS[name]
    if name.endswith("_bytes"):
        return "bytes"
    if name.endswith("_s"):
        return "seconds"
    if name.endswith(("_share", "_saving")):
        return "share"
    if isinstance(default, bool):
        return "choice"
    return "count" if isinstance(default, int) else "text"
