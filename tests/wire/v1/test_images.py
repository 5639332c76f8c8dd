"""Images, state by state: what each request does to each state, and the exact words of every refusal."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from api.v1 import homes, image
from api.v1.homes import EVERYWHERE, find
from api.v1.image import EMPTY_LAYER, KIND, Image
from api.v1.settings import V1Settings
from cas import Digest, Name, Reads
from tests.wire.v1.talk import TRUE, Registry, image_json, new_id, payload, refusal, running

UPLOADING = refusal("Image is being uploaded, retry later")
NOT_FOUND = refusal("Image not found")
EXISTS = refusal("Image already exists")
MISMATCH = refusal("Checksum mismatch")
READS = ("json", "layer", "ancestry", "files", "diff")


# --- the states -------------------------------------------------------------------------------------------


def test_an_unknown_image(registry: Registry) -> None:
    """Nothing to read, and nothing but json to write."""
    image_id = new_id()
    for part in READS:
        answer = registry.ask("GET", f"/v1/images/{image_id}/{part}")
        assert (answer.status, answer.body) == (404, NOT_FOUND), part
    for answer in (registry.put_layer(image_id, b"x"), registry.put_checksum(image_id, "sha256:00")):
        assert (answer.status, answer.body) == (404, NOT_FOUND)
    answer = registry.put_json(image_id)
    assert (answer.status, answer.body) == (200, TRUE)


def test_an_uploading_image_without_layer(registry: Registry) -> None:
    """400 to readers, so that a probe does not take it for present; json may come again."""
    image_id = new_id()
    registry.put_json(image_id)
    for part in READS:
        answer = registry.ask("GET", f"/v1/images/{image_id}/{part}")
        assert (answer.status, answer.body) == (400, UPLOADING), part
    answer = registry.put_checksum(image_id, payload(image_json(image_id), b""))
    assert (answer.status, answer.body) == (400, MISMATCH)
    assert registry.put_json(image_id).status == 200
    answer = registry.put_layer(image_id, b"x")
    assert (answer.status, answer.body) == (200, TRUE)


def test_an_uploading_image_with_its_layer(registry: Registry) -> None:
    """A layer alone completes nothing; a right checksum does, a wrong one changes nothing."""
    image_id = new_id()
    body = image_json(image_id)
    registry.put_json(image_id, body)
    registry.put_layer(image_id, b"first")
    registry.put_layer(image_id, b"second")
    for part in READS:
        assert registry.ask("GET", f"/v1/images/{image_id}/{part}").body == UPLOADING, part
    for wrong in (payload(body, b"first"), "sha256:0", "nonsense", payload(body, b"second").upper()):
        answer = registry.put_checksum(image_id, wrong)
        assert (answer.status, answer.body) == (400, MISMATCH), wrong
        assert registry.ask("GET", f"/v1/images/{image_id}/json").body == UPLOADING
    answer = registry.put_checksum(image_id, payload(body, b"second"))
    assert (answer.status, answer.body) == (200, TRUE)
    assert registry.ask("GET", f"/v1/images/{image_id}/layer").body == b"second"


def test_other_json_starts_an_uploading_image_over(registry: Registry) -> None:
    """The layer goes with the json it came for."""
    image_id = new_id()
    old, new = image_json(image_id), image_json(image_id, comment="new")
    registry.put_json(image_id, old)
    registry.put_layer(image_id, b"layer")
    assert registry.put_json(image_id, new).status == 200
    assert registry.put_checksum(image_id, payload(old, b"layer")).body == MISMATCH
    assert registry.put_checksum(image_id, payload(new, b"layer")).body == MISMATCH
    registry.put_layer(image_id, b"layer")
    assert registry.put_checksum(image_id, payload(new, b"layer")).status == 200
    assert registry.ask("GET", f"/v1/images/{image_id}/json").body == new


def test_a_complete_image_never_changes(registry: Registry) -> None:
    """409 in the exact words that make an engine skip it, with the same content and with other content."""
    image_id = registry.image(b"layer")
    body = image_json(image_id)
    for answer in (
        registry.put_json(image_id, body),
        registry.put_json(image_id, image_json(image_id, comment="other")),
        registry.put_layer(image_id, b"layer"),
        registry.put_layer(image_id, b"other"),
    ):
        assert (answer.status, answer.body) == (409, b'{"error": "Image already exists"}')
    for checksum in (payload(body, b"layer"), "sha256:00"):
        answer = registry.put_checksum(image_id, checksum)
        assert (answer.status, answer.body) == (409, refusal("Cannot set this image checksum"))
    assert registry.ask("GET", f"/v1/images/{image_id}/json").body == body
    assert registry.ask("GET", f"/v1/images/{image_id}/layer").body == b"layer"


def test_an_error_body_has_one_key_with_a_text(registry: Registry) -> None:
    """Engines decode it into a map of texts, and lose the words otherwise."""
    for answer in (registry.put_json(new_id(), b"{}"), registry.put_json(registry.image())):
        [(key, value)] = answer.value.items()
        assert key == "error"
        assert isinstance(value, str)


# --- json -------------------------------------------------------------------------------------------------


def test_json_comes_back_byte_for_byte(registry: Registry) -> None:
    """Odd spacing, key order, escapes, non-ASCII, a newline at the end: all of it is hashed by somebody."""
    image_id = new_id()
    body = b'\n{ "z" : "\\u00e9\xc3\xa9", "id":"%s" ,\t"a":1.50e3, "a":2 }\n\n' % image_id.encode()
    assert registry.put_json(image_id, body).status == 200
    registry.put_layer(image_id, b"layer")
    assert registry.put_checksum(image_id, payload(body, b"layer")).status == 200
    answer = registry.ask("GET", f"/v1/images/{image_id}/json")
    assert answer.body == body
    assert answer.headers["Content-Type"] == "application/json"


def test_json_tells_the_size_of_the_layer_and_the_checksum(registry: Registry) -> None:
    """The size of the bytes that will be sent; old engines stop without it."""
    image_id = registry.image(b"l" * 111)
    headers = registry.ask("GET", f"/v1/images/{image_id}/json").headers
    assert headers["X-Docker-Size"] == "111"
    assert headers["X-Docker-Checksum-Payload"] == payload(image_json(image_id), b"l" * 111)
    assert headers["X-Docker-Token"] is None


def test_bad_json_is_refused_and_leaves_nothing(registry: Registry) -> None:
    """Not an object, another id, no id, no such parent."""
    for body, words in (
        (b"[]", "Invalid JSON"),
        (b'{"id": ', "Invalid JSON"),
        (b'{"x": 1}', "Missing key `id' in JSON"),
        (image_json(new_id()), "JSON data contains invalid id"),
    ):
        image_id = new_id()
        answer = registry.put_json(image_id, body)
        assert (answer.status, answer.body) == (400, refusal(words))
        assert registry.ask("GET", f"/v1/images/{image_id}/json").status == 404


@pytest.mark.parametrize("image_id", ["1" * 63, "1" * 65, "A" * 64, "x" * 64, "1" * 16, "latest"])
def test_an_invalid_id_is_404_on_every_route(registry: Registry, image_id: str) -> None:
    """Wrong length or case; refused, not folded."""
    requests = [("GET", part) for part in READS] + [("PUT", "json"), ("PUT", "layer"), ("PUT", "checksum")]
    for method, part in requests:
        answer = registry.ask(method, f"/v1/images/{image_id}/{part}", b"{}" if method == "PUT" else None)
        assert (answer.status, answer.body) == (404, refusal("Invalid image ID")), (method, part)


def test_private_images_is_another_spelling_that_is_not_cached(registry: Registry) -> None:
    """As servers from 0.6 to 0.8 had it."""
    image_id = registry.image(b"layer")
    for part, body in (("json", image_json(image_id)), ("layer", b"layer")):
        answer = registry.ask("GET", f"/v1/private_images/{image_id}/{part}")
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["Cache-Control"] == "no-cache"
    assert registry.ask("GET", f"/v1/private_images/{new_id()}/files").status == 404


# --- parents and ancestry ---------------------------------------------------------------------------------


def test_ancestry_has_the_image_first_and_the_base_last(registry: Registry) -> None:
    """The image itself included."""
    base = registry.image()
    middle = registry.image(parent=base)
    top = registry.image(parent=middle)
    answer = registry.ask("GET", f"/v1/images/{top}/ancestry")
    assert (answer.status, answer.value) == (200, [top, middle, base])
    assert answer.body == f'["{top}", "{middle}", "{base}"]'.encode()
    assert registry.ask("GET", f"/v1/images/{base}/ancestry").value == [base]


def test_a_parent_must_exist_and_may_still_be_uploading(registry: Registry) -> None:
    """Engines send the base first; nobody waits for it to be complete."""
    image_id, parent = new_id(), new_id()
    answer = registry.put_json(image_id, image_json(image_id, parent))
    assert (answer.status, answer.body) == (400, refusal("Image depends on a non existing parent"))
    registry.put_json(parent)
    assert registry.put_json(image_id, image_json(image_id, parent)).status == 200


def test_ancestry_waits_for_every_ancestor(registry: Registry) -> None:
    """It names only images whose json and layer can be fetched."""
    base = new_id()
    registry.put_json(base)
    top = registry.image(parent=base)
    answer = registry.ask("GET", f"/v1/images/{top}/ancestry")
    assert (answer.status, answer.body) == (400, UPLOADING)
    registry.put_layer(base, b"layer")
    registry.put_checksum(base, payload(image_json(base), b"layer"))
    assert registry.ask("GET", f"/v1/images/{top}/ancestry").value == [top, base]


def test_no_tag_shows_an_image_that_nobody_could_pull(registry: Registry) -> None:
    """While a base is on its way, or where a collection took it before anything showed it: the push begins anew."""
    base = new_id()
    registry.put_json(base)
    top = registry.image(parent=base)
    assert registry.tag("me/app", "latest", top).status == 404
    registry.put_layer(base, b"layer")
    registry.put_checksum(base, payload(image_json(base), b"layer"))
    assert registry.tag("me/app", "latest", top).status == 200
    lost = registry.image()
    orphan = registry.image(parent=lost)
    registry.store.change(lambda names: names.delete(Name(KIND, lost)))
    answer = registry.tag("me/app", "latest", orphan)
    assert (answer.status, answer.body) == (404, NOT_FOUND)


def test_a_tag_looks_at_each_ancestor_once(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other writers wait meanwhile, and a chain may be long."""
    ids: list[str] = []
    for _ in range(4):
        ids.append(registry.image(parent=ids[-1] if ids else None))
    asked: list[str] = []

    def counting(reads: Reads, image_id: str) -> Image | None:
        asked.append(image_id)
        return image.find_complete(reads, image_id)

    monkeypatch.setattr(homes, "find_complete", counting)
    assert registry.tag("me/app", "latest", ids[-1]).status == 200
    assert asked == ids[::-1]
    assert registry.ask("GET", f"/v1/images/{ids[-1]}/ancestry").value == ids[::-1]


def test_an_image_cannot_be_its_own_ancestor(registry: Registry) -> None:
    """Neither directly nor by way of others."""
    one, two, three = new_id(), new_id(), new_id()
    assert registry.put_json(one, image_json(one, one)).status == 400
    registry.put_json(one)
    registry.put_json(two, image_json(two, one))
    registry.put_json(three, image_json(three, two))
    for parent in (one, two, three):
        answer = registry.put_json(one, image_json(one, parent))
        assert answer.status == 400
        assert b"itself" in answer.body
    assert registry.put_json(one).status == 200


def test_a_chain_has_a_length_limit(empty_registry: Registry) -> None:
    """127 images are the most that engines stack."""
    parent: str | None = None
    for _ in range(127):
        image_id = new_id()
        assert empty_registry.put_json(image_id, image_json(image_id, parent)).status == 200
        parent = image_id
    image_id = new_id()
    answer = empty_registry.put_json(image_id, image_json(image_id, parent))
    assert (answer.status, answer.body) == (400, refusal("Image has too many ancestors"))


def test_ancestry_grown_behind_an_images_back_has_the_same_limit(tmp_path: Path) -> None:
    """A base that is begun anew may get ancestors of its own; what a client is sent stays bounded."""
    with running(tmp_path / "root", v1=V1Settings(max_chain=3)) as registry:
        base = new_id()
        registry.put_json(base)
        top = registry.image(parent=registry.image(parent=base))
        grown = image_json(base, registry.image())
        registry.put_json(base, grown)
        registry.put_layer(base, b"x")
        assert registry.put_checksum(base, payload(grown, b"x")).status == 200
        answer = registry.ask("GET", f"/v1/images/{top}/ancestry")
    assert (answer.status, answer.body) == (400, refusal("Image has too many ancestors"))


def stored(registry: Registry, image_id: str) -> Image:
    image = registry.store.read(lambda reads: find(reads, EVERYWHERE, image_id))
    assert image is not None
    return image


# --- layers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 9, 10, 65_536, 65_537, 3_000_000])
def test_layers_come_back_byte_for_byte(registry: Registry, size: int) -> None:
    """Whatever they are: nothing is unpacked, nothing is packed."""
    layer = bytes(number * number % 251 for number in range(size))
    image_id = registry.image(layer)
    answer = registry.ask("GET", f"/v1/images/{image_id}/layer", headers={"Accept-Encoding": "gzip"})
    assert answer.body == layer
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == str(size)
    assert answer.headers["Accept-Ranges"] == "bytes"
    for absent in ("Content-Encoding", "ETag", "X-Docker-Token", "Pragma"):
        assert answer.headers[absent] is None


def test_a_layer_of_no_bytes_is_served_as_the_empty_archive(registry: Registry) -> None:
    """Old engines fail on less than ten bytes; the checksum is still that of what was pushed."""
    image_id = registry.image(b"")
    assert registry.ask("GET", f"/v1/images/{image_id}/layer").body == EMPTY_LAYER
    headers = registry.ask("GET", f"/v1/images/{image_id}/json").headers
    assert headers["X-Docker-Size"] == "32"
    assert headers["X-Docker-Checksum-Payload"] == payload(image_json(image_id), EMPTY_LAYER)


def test_the_checksum_is_of_the_body_not_of_its_framing(registry: Registry) -> None:
    """Chunks of any size make one layer."""
    image_id = new_id()
    body = image_json(image_id)
    registry.put_json(image_id, body)
    pieces = [b"a", b"bc" * 1000, b"d" * 70_000]
    assert registry.ask("PUT", f"/v1/images/{image_id}/layer", iter(pieces)).status == 200
    assert registry.put_checksum(image_id, payload(body, b"".join(pieces))).status == 200


# --- files and diff ---------------------------------------------------------------------------------------


def test_files_lists_the_layer(registry: Registry) -> None:
    """Cached, as it never changes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("./etc/hi")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"hi\n"))
    image_id = registry.image(out.getvalue())
    answer = registry.ask("GET", f"/v1/images/{image_id}/files")
    assert (answer.status, answer.value) == (200, [["/etc/hi", "f", False, 3, 0, 420, 0, 0]])
    assert answer.headers["Cache-Control"] == "public, max-age=31536000"


def test_files_of_what_is_no_archive(registry: Registry) -> None:
    """400 in the reference's words."""
    image_id = registry.image(b"not an archive")
    answer = registry.ask("GET", f"/v1/images/{image_id}/files")
    assert (answer.status, answer.body) == (400, refusal("Layer format not supported"))


def test_files_of_a_bomb_end_at_the_limit(tmp_path: Path) -> None:
    """A few kilobytes that unpack to gigabytes cost a bounded amount of work."""
    settings = V1Settings(max_unpacked_bytes=1 << 20)
    with running(tmp_path / "root", v1=settings) as registry:
        info = tarfile.TarInfo("big")
        info.size = 64 << 20
        image_id = registry.image(gzip.compress(info.tobuf() + bytes(info.size)))
        answer = registry.ask("GET", f"/v1/images/{image_id}/files")
    assert (answer.status, answer.body) == (400, refusal("Layer unpacks to more than this server reads"))


def test_diff_is_not_made_here(registry: Registry) -> None:
    """As in a reference without its queue."""
    answer = registry.ask("GET", f"/v1/images/{registry.image()}/diff")
    assert (answer.status, answer.body) == (400, refusal("Diff queue is disabled"))


# --- caching ----------------------------------------------------------------------------------------------


def test_what_never_changes_may_be_cached_for_a_year(registry: Registry) -> None:
    """And errors about it may not."""
    image_id = registry.image()
    for part in ("json", "layer", "ancestry"):
        headers = registry.ask("GET", f"/v1/images/{image_id}/{part}").headers
        assert headers["Cache-Control"] == "public, max-age=31536000"
        assert headers["Expires"] == "Tue, 23 Nov 2027 12:41:39 GMT"
        assert headers["Last-Modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"
        assert headers["Pragma"] is None
        missing = registry.ask("GET", f"/v1/images/{new_id()}/{part}").headers
        assert missing["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("since", ["Thu, 01 Jan 1970 00:00:00 GMT", "nonsense"])
def test_not_modified_only_after_it_is_known_to_be_there(registry: Registry, since: str) -> None:
    """The reference answered 304 for images it did not have."""
    headers = {"If-Modified-Since": since}
    complete, uploading = registry.image(), new_id()
    registry.put_json(uploading)
    for part in ("json", "layer", "ancestry", "files"):
        answer = registry.ask("GET", f"/v1/images/{complete}/{part}", headers=headers)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["Cache-Control"] == "public, max-age=31536000"
        assert registry.ask("GET", f"/v1/images/{uploading}/{part}", headers=headers).status == 400
        assert registry.ask("GET", f"/v1/images/{new_id()}/{part}", headers=headers).status == 404


def test_an_image_holds_its_blobs_and_says_all_of_itself(registry: Registry) -> None:
    """Nothing else keeps them from being collected; nothing else is needed to serve it."""
    image_id = registry.image(b"layer")
    image = stored(registry, image_id)
    record = registry.store.get(image.name)
    assert record is not None
    assert json.loads(record.value)["state"] == "complete"
    assert record.logical_bytes == len(image_json(image_id)) + 5
    assert record.holds == (Digest.of(image_json(image_id)), Digest.of(b"layer"))
    assert Image.read(image_id, image.record()) == image


def test_an_image_is_there_at_every_moment_while_it_becomes_complete(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moves from the uploads to the images in one change; whoever looks at both sees it in one of them."""
    image_id = new_id()
    body = image_json(image_id)
    registry.put_json(image_id, body)
    registry.ask("PUT", f"/v1/images/{image_id}/layer", b"a layer")
    proof = {"X-Docker-Checksum-Payload": payload(body, b"a layer")}
    look, found = image.find_complete, []

    def overtaken(reads: Reads, sought: str) -> Image | None:
        """Let another request complete the image between the two looks of this one."""
        before = look(reads, sought)
        monkeypatch.undo()
        if before is None:
            found.append(registry.ask("PUT", f"/v1/images/{image_id}/checksum", None, proof).status)
        return before

    monkeypatch.setattr(homes, "find_complete", overtaken)
    assert registry.ask("GET", f"/v1/images/{image_id}/json").status == 400
    assert found == [200]
    assert registry.ask("GET", f"/v1/images/{image_id}/json").status == 200
