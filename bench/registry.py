"""Jobs of a registry's clients: blobs and manifests, pushed and pulled as OCI Distribution says, on any server."""

from __future__ import annotations

import json
import shutil
from functools import partial
from urllib.parse import urlsplit

from bench.corpus import Blob
from bench.field import Runner
from bench.load import Connection, Job

REPOSITORY = "bench/app"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_DOCKER_CHUNK = 32_768  # what engines' copy loops hand to their HTTP library at a time


def push_by_put(blob: Blob, connection: Connection) -> int:
    """As containerd does: POST, then PUT with the body."""
    place = opened(connection)
    done = connection.ask("PUT", closing(place, blob.digest), blob.content, Content_Type="application/octet-stream")
    assert done.status == 201, done.head
    return blob.size


def push_by_patch(blob: Blob, connection: Connection) -> int:
    """As docker does: POST, one PATCH of unknown length, an empty PUT."""
    sent = connection.ask_in_chunks("PATCH", opened(connection), blob.content, _DOCKER_CHUNK)
    assert sent.status == 202, sent.head
    done = connection.ask("PUT", closing(sent.header("location"), blob.digest))
    assert done.status == 201, done.head
    return blob.size


def pull(target: str, size: int, connection: Connection, *, word: str = "", token: str = "") -> int:
    """GET, and throw away what comes; its length must be right. A word of its own makes a request another one."""
    headers = {"Accept": MANIFEST, "X_Word": word} | ({"Authorization": f"Bearer {token}"} if token else {})
    answer = connection.ask("GET", target, b"", keep=False, **headers)
    assert (answer.status, answer.size) == (200, size), answer.head
    return answer.size


def look(target: str, connection: Connection) -> int:
    """HEAD."""
    answer = connection.ask("HEAD", target, Accept=MANIFEST)
    assert answer.status == 200, answer.head
    return 0


def nobodys_token(runner: Runner) -> str:
    """Have a token made for whoever asks, to pull what everybody may."""
    with Connection(runner.address) as connection:
        answer = connection.ask("GET", f"/v2/token?scope=repository:{REPOSITORY}:pull", keep=True)
        assert answer.status == 200, answer.head
        token: str = json.loads(answer.body)["token"]
        return token


def give(runner: Runner, blob: Blob) -> Job:
    """Put a blob where a server has its own, and give the job that pulls it."""
    if runner.name == "nginx":
        name = blob.digest.replace(":", "-")
        with blob.content.file.open("rb") as source, (runner.data / name).open("wb") as target:
            source.seek(blob.content.start)
            if blob.content.start == 0 and blob.content.file.stat().st_size == blob.size:
                shutil.copyfileobj(source, target, 1 << 20)
            else:
                target.write(source.read(blob.size))
        return partial(pull, f"/{name}", blob.size)
    with Connection(runner.address) as connection:
        push_by_put(blob, connection)
    return partial(pull, f"/v2/{REPOSITORY}/blobs/{blob.digest}", blob.size)


def give_image(runner: Runner, config: Blob, layers: list[Blob], tag: str) -> int:
    """Push an image whose blobs are there; give its manifest's length."""
    said = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size} for layer in layers],
        "annotations": {"bench.tag": tag},
    }
    body = json.dumps(said).encode()
    with Connection(runner.address) as connection:
        done = connection.ask("PUT", f"/v2/{REPOSITORY}/manifests/{tag}", body, Content_Type=MANIFEST)
    assert done.status == 201, done.head
    return len(body)


def opened(connection: Connection) -> str:
    """Open an upload; give where to go on."""
    answer = connection.ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
    assert answer.status == 202, answer.head
    return _place(answer.header("location"))


def _place(location: str | None) -> str:
    assert location is not None
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def closing(location: str | None, digest: str) -> str:
    """Give the target that ends an upload."""
    place = _place(location)
    return f"{place}{'&' if '?' in place else '?'}digest={digest}"
