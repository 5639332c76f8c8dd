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

from api.access.settings import AccessSettings, Mode
from api.config import HttpSettings
from api.content.settings import KeepingSettings
from api.v1.settings import V1Settings
from api.v2.settings import V2Settings
from cas import EngineSettings


class Section(StrEnum):
    """Whose setting it is; the heading in `--help`."""

    COMMAND = "Options"
    ACCESS = "Accounts and access"
    HTTP = "Limits and choices of the HTTP edge"
    V1 = "Limits and choices of Registry v1"
    V2 = "Limits of the v2 API"
    KEEPING = "Keeping house"
    ENGINE = "Tunables of the engine"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `past` says what meets whoever goes past it, where there is such a thing."""

    reason: str
    past: str = ""
    least: float = 1
    most: float | None = None
    choices: tuple[str, ...] = ()


_YEARS = 100 * 366 * 86400  # longer than anybody means

NO_LIMIT = "none"  # how "no limit" is written for the settings that allow it

COMMAND: dict[str, Row] = {
    "root": Row("Folder of the store. `serve` makes one that does not exist yet."),
    "bind": Row("HOST:PORT to listen on. Port 0 takes a free one, told in the ready line."),
    "allow_open": Row(
        "In `open` mode, serve other machines too, or a store that has accounts: whoever comes may do everything."
    ),
    "tls_cert": Row("PEM file of the certificate and its chain; makes the port speak https. Needs `tls_key`."),
    "tls_key": Row("PEM file of its private key, without a passphrase."),
    "workers": Row("Processes that serve. Hashing takes a core a push; more than cores gain nothing."),
    "log_level": Row("Least severe message written to stderr: debug, info, warning or error."),
    "access_log": Row("File that gets a line a request; `-` is standard output, `none` is no such log."),
    "metrics": Row("HOST:PORT that answers monitors at `/metrics`, and nothing else; `none` is no such address."),
}

ACCESS: dict[str, Row] = {
    "mode": Row(
        "Who says who may do what: nobody, this server's accounts, another index.",
        choices=tuple(mode.value for mode in Mode),
    ),
    "signup": Row("Whether strangers may make an account by the API."),
    "default_access": Row("Who may pull a new repository.", choices=("private", "public")),
    "htpasswd": Row("Apache password file (bcrypt) of further accounts."),
    "index_url": Row("The index that vouches in `token` mode."),
    "token_s": Row("How long a Bearer token is good for; transfers may outlast it.", "401", least=60),
    "min_password_chars": Row("Least length of a new password; the default is the least that old clients know.", "400"),
    "max_password_bytes": Row("A password, in UTF-8.", "400, or a wrong password", least=64),
    "password_checks": Row("Passwords one worker hashes at once.", "they wait for their turn"),
    "user_failures": Row("Wrong passwords a minute for one user from one address.", "429"),
    "address_failures": Row("Wrong passwords a minute from one address.", "429"),
    "remember_s": Row("How long a right password is known again without hashing.", "hashed anew", least=0),
}

HTTP: dict[str, Row] = {
    "max_header_bytes": Row("Request line and headers together.", "431, connection closed", least=1024),
    "max_json_bytes": Row("A JSON body, held in memory whole.", "413", least=1024),
    "large_bodies": Row("JSON bodies beyond 64 KiB held by one worker at once.", "their senders wait"),
    "max_layer_bytes": Row("A layer's body, never held in memory; `none` is no limit.", "413"),
    "max_connections": Row("Connections of one worker.", "newcomers wait to be accepted"),
    "backlog": Row("Connections waiting for any worker.", "the client's kernel tries again, then times out"),
    "keep_alive_s": Row(
        "An idle connection, and the wait for a request's head or a TLS hello.", "connection closed", least=0.1
    ),
    "keep_alive_requests": Row(
        "Requests on one connection, so that connections spread over workers.", "`Connection: close`"
    ),
    "stall_s": Row("A transfer that moves no byte at all; a slow one moves some.", "connection dropped", least=0.1),
    "grace_s": Row("Time for transfers under way once told to stop.", "they are cut", least=0),
    "linger_bytes": Row("Unwanted body read, so that the client sees the answer.", "connection closed", least=0),
    "linger_s": Row("Time for the same.", "connection closed", least=0),
    "send_bytes": Row(
        "Given to a socket by one sendfile: fairness between clients; up to 4 times as much while only files are sent.",
        least=4096,
    ),
    "threads": Row("Threads for engine calls of one worker.", "calls wait for their turn"),
    "cold_threads": Row("Threads that may wait for a disk in sendfile.", "cold transfers wait, warm ones never"),
    "repeat_bytes": Row("Answers kept by each worker, given again while still true.", least=0),
    "h2_streams": Row("Requests at once on one HTTP/2 connection.", "connection closed"),
    "h2_stream_bytes": Row(
        "Window of an HTTP/2 upload: what it moves in a round trip.", "the sender waits", least=65_535, most=1 << 30
    ),
    "h2_connection_bytes": Row(
        "The same for all uploads of a connection.", "the sender waits", least=65_535, most=1 << 30
    ),
    "h2_held_bytes": Row("Of bodies, waiting in a worker for their turn.", "read a piece at a time", least=0),
    "public_url": Row("Where clients are sent; `none` is where each request came to."),
    "trust_forwarded": Row("Believe Forwarded and X-Forwarded-…; only behind a proxy that always sets them."),
}

ENGINE: dict[str, Row] = {
    "inline_bytes": Row(
        "Blobs up to this size live in the index: one look-up reads them.", "stored in a pack", least=0, most=1 << 20
    ),
    "run_bytes": Row(
        "Appended by an upload before a commit record; long runs are long extents.", least=64 * 1024, most=1 << 30
    ),
    "direct_bytes": Row(
        "Written past the page cache: what of an upload lies beyond this, and all of one announced as twice as long.",
        least=0,
    ),
    "segment_chunks": Row("Chunks in a recipe's segment; bounds the memory of an upload and a read.", most=32_768),
    "pack_bytes": Row(
        "A pack this large is sealed; smaller ones on a small disk.",
        "the next pack begins",
        least=1024 * 1024,
        most=2 << 30,
    ),
    "zstd_level": Row("Effort for chunks of compressible blobs.", most=22),
    "zstd_min_saving": Row("Share that must go for a chunk to be kept compressed.", "kept raw", least=0, most=1),
    "compact_share": Row("Share of a pack that must be dead for it to be rewritten.", "left alone", least=0, most=1),
    "map_bytes": Row("First size of the index's memory map: address space only.", "doubled", least=1024 * 1024),
    "max_readers": Row("Reader slots of the index, fixed by the first process that opens it.", most=1 << 20),
    "group_changes": Row("Changes of names in one durable commit.", "the next commit takes them"),
    "write_wait_s": Row("A change's wait for other processes.", "503 with Retry-After; exit code 75", least=0.1),
    "reserve_bytes": Row("Kept free for deletes and collection on a full disk.", "503; by v1 507", least=0),
    "reserve_share": Row(
        "The same as a share of the filesystem, 8 MiB at least; the smaller counts.",
        "503; by v1 507",
        least=0,
        most=0.5,
    ),
    "open_packs": Row("Pack files kept open for reading.", "the least used is closed"),
    "hash_threads": Row("Threads that hash uploads beside the chunking ones."),
    "upload_life_s": Row("A resumable upload's wait for its next request.", "its bytes are forgotten", least=60),
    "upload_tombstone_s": Row("How long a finished or cancelled upload is remembered.", "404 to who asks", least=60),
}

V1: dict[str, Row] = {
    "v1_platform": Row("Which image of an index v1 clients get, as `os/architecture[/variant]`."),
    "v1_endpoints": Row("Registries told to clients, as `host[:port]`, by commas; `none` is this one."),
    "v1_token_s": Row("How long a token is good for; it must span the longest push.", least=60),
    "v1_vouched_s": Row("How long the index's word about a token is good for.", "asked again", least=0),
    "v1_index_timeout_s": Row("An answer of the index.", "503", least=0.1),
    "v1_max_chain": Row("Images in an ancestry; engines stack no more than 127.", "400"),
    "v1_max_unpacked_bytes": Row("Unpacked bytes read from a layer to list, verify or convert it.", "400; 404 by v2"),
    "v1_max_entries": Row("Archive entries whose digests a tarsum keeps in memory.", "400"),
    "v1_max_listing_bytes": Row("A file listing, held in memory whole.", "400"),
    "v1_unpackers": Row("Layers unpacked at once by one worker; each takes a core.", "requests wait for their turn"),
}

V2: dict[str, Row] = {
    "v2_max_manifest_bytes": Row("A manifest, held in memory whole.", "413", least=1024),
    "v2_max_push_tags": Row(
        "Tags set by one push of a manifest; some clients read 100 headers, and each is one.", "414"
    ),
    "v2_tags_page": Row("Tags in one answer; a client may name fewer.", "a link to the next page"),
    "v2_catalogue_page": Row("The same for repositories.", "a link to the next page"),
    "v2_max_catalogue_page": Row("Repositories in one answer, whatever the client names.", "a link to the next page"),
    "v2_referrers_page_bytes": Row("A page of referrers.", "a link to the next page", least=64 * 1024),
}

KEEPING: dict[str, Row] = {
    "gc_interval_s": Row("How long after one collection a server begins the next; 0 is never.", least=0, most=_YEARS),
    "gc_grace_s": Row(
        "How long a blob waits for a manifest that names it, and an unfinished v1 image for the rest.",
        "removed by the next collection",
        least=7200,
        most=_YEARS,
    ),
    "undelete_s": Row(
        "How long what was deleted can be brought back.", "removed by the next collection", least=0, most=_YEARS
    ),
    "scrub_rate_bytes": Row("A second, by which a server reads through what it stores; 0 is never.", least=0),
    "scrub_interval_s": Row("How long after that each pack is read through again.", least=60, most=_YEARS),
    "scrub_mends": Row("Set aside what it finds damaged, so that a push heals it; else it is only said, once a day."),
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
        return self.values(**{name.removeprefix(self.prefix): _typed(name, told[name]) for name in self.rows})


def _typed(name: str, value: Any) -> Any:
    default = DEFAULTS[name]
    return type(default)(value) if isinstance(default, StrEnum) else value


GROUPS: dict[Section, Group] = {
    Section.COMMAND: Group(COMMAND),
    Section.ACCESS: Group(ACCESS, AccessSettings),
    Section.HTTP: Group(HTTP, HttpSettings),
    Section.V1: Group(V1, V1Settings, "v1_"),
    Section.V2: Group(V2, V2Settings, "v2_"),
    Section.KEEPING: Group(KEEPING, KeepingSettings),
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
    if name.endswith("_url"):
        return "url"
    if name.endswith("_platform"):
        return "platform"
    if isinstance(default, bool):
        return "choice"
    return "count" if isinstance(default, int) else "text"
