"""One v1 image as a value: what the store remembers of it, and how that is written down.

    v1.image    id         a complete image: one for everybody, whoever may see it
    v1.upload   home:id    one on its way in; each home has its own, until it is complete

An image is complete or still uploading; the moves between are in `images`, what a home is in `homes`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from cas import Digest, Name, Reads, Record

KIND: Final = "v1.image"
UPLOAD: Final = "v1.upload"

# An archive without entries, gzipped. Old engines choke on layers shorter than ten bytes, so this one is kept
# in place of a layer of no bytes at all.
EMPTY_LAYER: Final = bytes.fromhex("1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000")
EMPTY_LAYER_DIGEST: Final = Digest.of(EMPTY_LAYER)


@dataclass(frozen=True, slots=True)
class Image:
    """An image under its id.

    Attributes:
        complete: proven by a checksum; from then on nothing of it changes.
        json: the very bytes pushed; they are hashed by clients.
        parent: the next id of its ancestry.
        chain: how many ids that ancestry had when the json came.
        layer: the layer as it is served; None until one was received whole.
        checksum: payload checksum of the json and of the layer as it was pushed. Of an image that was made of a
            manifest nothing until somebody asks: see `views`.
        announced: a checksum sent along with the json, which the layer then has to meet (engines before 0.6).
        began: when its first json came, in Unix seconds.
        at: when its push last got on, in Unix seconds: its json came, its layer, or what completed it.
        home: where it is being uploaded; nothing for a complete one.
        contended: the json was pushed more than once before the image was complete, so whoever comes second
            may still finish, with the same bytes.
    """

    id: str
    complete: bool
    json: Digest
    json_bytes: int
    parent: str | None
    chain: int
    layer: Digest | None = None
    layer_bytes: int = 0
    checksum: str = ""
    announced: str = ""
    contended: bool = False
    began: int = 0
    at: float = 0.0
    home: str = ""

    @property
    def name(self) -> Name:
        """Where it stands in the store."""
        return Name(KIND, self.id) if self.complete else Name(UPLOAD, f"{self.home}:{self.id}")

    def record(self) -> Record:
        """Write it down, holding its blobs."""
        value: dict[str, Any] = {
            "state": "complete" if self.complete else "uploading",
            "json": str(self.json),
            "json_bytes": self.json_bytes,
            "parent": self.parent,
            "chain": self.chain,
            "layer": str(self.layer) if self.layer else None,
            "layer_bytes": self.layer_bytes,
            "checksum": self.checksum,
            "announced": self.announced,
            "contended": self.contended,
            "began": self.began,
            "at": self.at,
        }
        holds = (self.json, self.layer) if self.layer else (self.json,)
        text = json.dumps(value, separators=(",", ":")).encode()
        return Record(text, tuple(dict.fromkeys(holds)), self.json_bytes + self.layer_bytes)

    @classmethod
    def read(cls, image_id: str, record: Record, home: str = "") -> Image:
        """Read what `record` wrote."""
        value = json.loads(record.value)
        return cls(
            id=image_id,
            complete=value["state"] == "complete",
            json=Digest.parse(value["json"]),
            json_bytes=value["json_bytes"],
            parent=value["parent"],
            chain=value["chain"],
            layer=Digest.parse(value["layer"]) if value["layer"] else None,
            layer_bytes=value["layer_bytes"],
            checksum=value["checksum"],
            announced=value["announced"],
            contended=value["contended"],
            began=value["began"],
            at=value.get("at", value["began"]),  # earlier versions did not note it
            home=home,
        )

    def is_lost(self, reads: Reads) -> bool:
        """Tell whether damage took its json or its layer; an image keeps its name then, and what it holds (I9)."""
        return any(reads.stat(each) is None for each in (self.json, self.layer) if each is not None)

    def has_bytes_of(self, other: Image) -> bool:
        """Tell whether two images consist of the same bytes."""
        told = not (self.checksum and other.checksum) or self.checksum == other.checksum
        return told and (self.json, self.layer) == (other.json, other.layer)


def find_complete(reads: Reads, image_id: str) -> Image | None:
    """Look a complete image up, whoever may see it."""
    record = reads.get(Name(KIND, image_id))
    return None if record is None else Image.read(image_id, record)


def find_upload(reads: Reads, home: str, image_id: str) -> Image | None:
    """Look up what is being uploaded in one home."""
    record = reads.get(Name(UPLOAD, f"{home}:{image_id}"))
    return None if record is None else Image.read(image_id, record, home)
