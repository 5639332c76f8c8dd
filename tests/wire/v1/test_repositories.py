"""Repositories, tags and their metadata; and the routes on which a push and a pull begin and end."""

from __future__ import annotations

import json

import pytest

from tests.v1client import AGENT
from tests.wire.harness import NOW
from tests.wire.v1.talk import TRUE, Registry, image_json, new_id, new_repository, payload, refusal

NO_TAG = refusal("Tag not found")
NO_REPOSITORY = refusal("Repository not found")
NO_IMAGES = refusal("images not found")


def listed(*image_ids: str, **more: str) -> bytes:
    return json.dumps([{"id": image_id, **more} for image_id in image_ids]).encode()


@pytest.fixture(scope="module")
def image_id(registry: Registry) -> str:
    return registry.image()


@pytest.fixture
def repository() -> str:
    return new_repository()


# --- tags -------------------------------------------------------------------------------------------------


def test_a_tag_is_put_and_read_as_a_json_string(registry: Registry, repository: str, image_id: str) -> None:
    """With quotes: engines decode it."""
    answer = registry.tag(repository, "latest", image_id)
    assert (answer.status, answer.body) == (200, TRUE)
    answer = registry.ask("GET", f"/v1/repositories/{repository}/tags/latest")
    assert (answer.status, answer.body) == (200, f'"{image_id}"'.encode())
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Docker-Token"] is None


def test_tags_are_listed_as_an_object(registry: Registry, repository: str, image_id: str) -> None:
    """Tag to full id."""
    registry.tag(repository, "latest", image_id)
    registry.tag(repository, "1.0", image_id)
    answer = registry.ask("GET", f"/v1/repositories/{repository}/tags")
    assert answer.body == f'{{"1.0": "{image_id}", "latest": "{image_id}"}}'.encode()


def test_a_tag_moves_to_another_image_without_a_word(registry: Registry, repository: str, image_id: str) -> None:
    """The last write wins."""
    other = registry.image()
    registry.tag(repository, "latest", image_id)
    assert registry.tag(repository, "latest", other).status == 200
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags/latest").value == other


def test_tags_differ_by_case(registry: Registry, repository: str, image_id: str) -> None:
    """Nothing is folded."""
    registry.tag(repository, "A", image_id)
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags/a").status == 404


def test_similar_repositories_do_not_see_each_others_tags(registry: Registry, image_id: str) -> None:
    """One name may be the beginning of another."""
    registry.tag("similar/a", "x", image_id)
    registry.tag("similar/a-b", "y", image_id)
    registry.tag("similar/a/b", "z", image_id)
    assert list(registry.ask("GET", "/v1/repositories/similar/a/tags").value) == ["x"]


def test_a_tag_needs_a_complete_image(registry: Registry, repository: str) -> None:
    """The reference took uploading ones; a pull of such a tag fails."""
    uploading = new_id()
    registry.put_json(uploading)
    for target in (uploading, new_id(), "latest"):
        answer = registry.tag(repository, "latest", target)
        assert (answer.status, answer.body) == (404, refusal("Image not found"))
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags").status == 404


@pytest.mark.parametrize("body", [b"", b'""', b"{}", b"null", b"x", b"\xff"])
def test_a_tag_needs_a_json_string(registry: Registry, repository: str, body: bytes) -> None:
    """Anything else is invalid data."""
    answer = registry.ask("PUT", f"/v1/repositories/{repository}/tags/latest", body)
    assert (answer.status, answer.body) == (400, refusal("Invalid data"))


@pytest.mark.parametrize("tag", [".x", "-x", "x" * 129, "a%20b", "a:b", "%C3%A9", "a%25"])
def test_a_bad_tag_is_refused_when_written_and_unknown_when_read(
    registry: Registry, repository: str, image_id: str, tag: str
) -> None:
    """A client that reads gets the answer it knows."""
    answer = registry.tag(repository, tag, image_id)
    words = r"Invalid tag name (must match ^[\w][\w.-]{0,127}$)"
    assert (answer.status, answer.body) == (400, refusal(words))
    path = f"/v1/repositories/{repository}/tags/{tag}"
    assert registry.ask("GET", path).body == NO_TAG
    assert registry.ask("DELETE", path).status == 404
    assert registry.ask("GET", f"{path}/json").status == 200


@pytest.mark.parametrize(
    "name", ["Upper/case", "a--/b", "a/b.", "a/-b", "a%20b/c", "a//b", "a/%F0%9F%90%B3", "x" * 256]
)
def test_a_bad_repository_is_400_on_every_route(registry: Registry, image_id: str, name: str) -> None:
    """Written or read."""
    base = f"/v1/repositories/{name}"
    for method, path, body in (
        ("PUT", f"{base}/", b"[]"),
        ("PUT", f"{base}/images", b"[]"),
        ("PUT", f"{base}/tags/x", json.dumps(image_id).encode()),
        ("PUT", f"{base}/properties", b'{"access": "private"}'),
        ("DELETE", f"{base}/", None),
        *(
            ("GET", f"{base}/{part}", None)
            for part in ("tags", "tags/x", "tags/x/json", "json", "images", "properties")
        ),
    ):
        answer = registry.ask(method, path, body)
        assert answer.status == 400, (method, path)
        assert b"Invalid repository name" in answer.body


def test_a_missing_tag_or_repository_is_404(registry: Registry, repository: str, image_id: str) -> None:
    """Any other code sends a client to other endpoints, and ends in an error about the network."""
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags").body == NO_REPOSITORY
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags/latest").body == NO_TAG
    registry.tag(repository, "x", image_id)
    answer = registry.ask("GET", f"/v1/repositories/{repository}/tags/latest")
    assert (answer.status, answer.body) == (404, NO_TAG)


def test_a_deleted_tag_is_gone_and_its_image_is_not(registry: Registry, repository: str, image_id: str) -> None:
    """The repository stays too, without tags."""
    registry.tag(repository, "1.0", image_id)
    path = f"/v1/repositories/{repository}/tags/1.0"
    answer = registry.ask("DELETE", path)
    assert (answer.status, answer.body) == (200, TRUE)
    answer = registry.ask("DELETE", path)
    assert (answer.status, answer.body) == (404, refusal("Tag not found: 1.0"))
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags").body == b"{}"
    assert registry.ask("GET", f"/v1/images/{image_id}/layer").status == 200


def test_names_that_look_like_routes(registry: Registry, image_id: str) -> None:
    """Tags may be called almost anything; repositories may contain `tags`, but not end in such a word."""
    for tag in ("tags", "json", "images"):
        assert registry.tag("routes", tag, image_id).status == 200
        assert registry.ask("GET", f"/v1/repositories/routes/tags/{tag}").value == image_id
        assert registry.ask("GET", f"/v1/repositories/library/routes/tags/{tag}").value == image_id
    assert sorted(registry.ask("GET", "/v1/repositories/routes/tags").value) == ["images", "json", "tags"]
    assert registry.tag("routes/tags/deep", "x", image_id).status == 200
    assert registry.ask("GET", "/v1/repositories/routes/tags/deep/tags").value == {"x": image_id}
    for name in ("tags", "images", "json", "properties", "auth"):
        assert registry.ask("PUT", f"/v1/repositories/{name}/", b"[]").status == 400


# --- who pushed it ----------------------------------------------------------------------------------------


def test_a_tag_remembers_its_pusher(registry: Registry, repository: str, image_id: str) -> None:
    """From the agent's name and value pairs; the repository shows its tag `latest`."""
    body = json.dumps(image_id).encode()
    registry.ask("PUT", f"/v1/repositories/{repository}/tags/latest", body, {"User-Agent": AGENT})
    pusher = {
        "arch": "amd64",
        "docker_go_version": "go1.7.5",
        "docker_version": "1.13.1",
        "kernel": "4.4.0",
        "last_update": int(NOW),
        "os": "linux",
    }
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags/latest/json").value == pusher
    assert registry.ask("GET", f"/v1/repositories/{repository}/json").value == pusher


def test_an_unknown_tag_has_the_default_metadata(registry: Registry, repository: str) -> None:
    """200 always."""
    default = {
        "last_update": None,
        "docker_version": None,
        "docker_go_version": None,
        "kernel": None,
        "arch": "amd64",
        "os": "linux",
    }
    for path in ("tags/none/json", "json"):
        answer = registry.ask("GET", f"/v1/repositories/{repository}/{path}")
        assert (answer.status, answer.value) == (200, default)


def test_metadata_goes_with_its_tag(registry: Registry, repository: str, image_id: str) -> None:
    """Also the repository's, which is that of `latest`."""
    registry.tag(repository, "latest", image_id)
    assert registry.ask("GET", f"/v1/repositories/{repository}/json").value == {"last_update": int(NOW)}
    registry.ask("DELETE", f"/v1/repositories/{repository}/tags/latest")
    assert registry.ask("GET", f"/v1/repositories/{repository}/json").value["last_update"] is None


# --- beginning and ending a push and a pull ---------------------------------------------------------------


@pytest.mark.parametrize("slash", ["/", ""])
def test_a_push_begins_with_token_and_endpoints(registry: Registry, repository: str, slash: str) -> None:
    """Asked for or not: old engines stop without. Both spellings, never a redirect."""
    answer = registry.ask("PUT", f"/v1/repositories/{repository}{slash}", listed(new_id()))
    assert (answer.status, answer.body) == (200, b'""')
    assert answer.headers["X-Docker-Endpoints"] == registry.host
    token = answer.headers["X-Docker-Token"]
    assert token.startswith("signature=")
    assert token.endswith(f',repository="{repository}",access=write')
    assert answer.headers["WWW-Authenticate"] == f"Token {token}"


def test_endpoints_are_the_host_the_client_named(registry: Registry, repository: str) -> None:
    """With its port, without scheme or path; a host that could mislead is not repeated."""
    headers = {"Host": "registry.example:5443"}
    answer = registry.ask("PUT", f"/v1/repositories/{repository}/", b"[]", headers)
    assert answer.headers["X-Docker-Endpoints"] == "registry.example:5443"
    answer = registry.ask("PUT", f"/v1/repositories/{repository}/", b"[]", {"Host": "good:1,evil:2"})
    assert answer.headers["X-Docker-Endpoints"] == registry.host


def test_the_image_list_is_a_union_that_only_grows(registry: Registry, repository: str) -> None:
    """Tags in it are not kept, checksums are; the empty list at the end of every push removes nothing."""
    one, two = sorted((new_id(), new_id()))
    path = f"/v1/repositories/{repository}"
    registry.ask(
        "PUT", f"{path}/", json.dumps([{"id": one}, {"id": two, "Tag": "a"}, {"id": two, "Tag": "b"}]).encode()
    )
    assert registry.ask("GET", f"{path}/images").value == [{"id": one}, {"id": two}]
    assert registry.ask("PUT", f"{path}/images", b"[]").status == 204
    assert registry.ask("PUT", f"{path}/images", listed(one, checksum="tarsum+sha256:aa")).status == 204
    assert registry.ask("PUT", f"{path}/", listed(one, two)).status == 200
    assert registry.ask("PUT", f"{path}/images", listed(one, checksum="tarsum+sha256:bb")).status == 204
    assert registry.ask("GET", f"{path}/images").value == [{"id": one, "checksum": "tarsum+sha256:aa"}, {"id": two}]


def test_a_list_of_thousands_is_taken_whole(registry: Registry, repository: str) -> None:
    """All tags of a large repository in one push of an old engine."""
    ids = sorted(new_id() for _ in range(2500))
    assert registry.ask("PUT", f"/v1/repositories/{repository}/", listed(*ids)).status == 200
    answer = registry.ask("GET", f"/v1/repositories/{repository}/images")
    assert [entry["id"] for entry in answer.value] == ids


@pytest.mark.parametrize("part", ["/", "/images"])
def test_a_bad_image_list_makes_no_repository(registry: Registry, repository: str, part: str) -> None:
    """400 in the reference's words."""
    for body, words in ((b"nonsense", "Error Decoding JSON"), (b"{}", "Invalid data"), (b"[{}]", "Invalid data")):
        answer = registry.ask("PUT", f"/v1/repositories/{repository}{part}", body)
        assert (answer.status, answer.body) == (400, refusal(words))
    assert registry.ask("GET", f"/v1/repositories/{repository}/tags").status == 404


def test_a_push_ends_with_204_and_nothing_else(registry: Registry, repository: str) -> None:
    """Any other code fails a push that has succeeded."""
    path = f"/v1/repositories/{repository}/images"
    answer = registry.ask("PUT", path, b"[]", {"X-Docker-Token": "true"})
    assert (answer.status, answer.body) == (204, b"")
    assert "access=write" in answer.headers["X-Docker-Token"]
    assert answer.headers["X-Docker-Endpoints"] == registry.host
    assert registry.ask("PUT", path, b"[]").headers["X-Docker-Token"] is None


def test_a_pull_begins_with_the_list(registry: Registry, repository: str, image_id: str) -> None:
    """404 for a repository that is not there, in words of its own; a tag alone makes one."""
    path = f"/v1/repositories/{repository}/images"
    answer = registry.ask("GET", path)
    assert (answer.status, answer.body) == (404, NO_IMAGES)
    registry.tag(repository, "latest", image_id)
    answer = registry.ask("GET", path, headers={"X-Docker-Token": "true"})
    assert (answer.status, answer.value) == (200, [{"id": image_id}])
    assert "access=read" in answer.headers["X-Docker-Token"]
    assert registry.ask("GET", path).headers["X-Docker-Token"] is None


def test_foo_is_library_foo_everywhere(registry: Registry, image_id: str) -> None:
    """One push mixes both spellings; tokens name the full one."""
    for short, full in (("libtest", "library/libtest"), ("library/libtest2", "libtest2")):
        answer = registry.ask("PUT", f"/v1/repositories/{short}/", listed(image_id))
        assert f'repository="library/{short.removeprefix("library/")}"' in answer.headers["X-Docker-Token"]
        registry.tag(short, "latest", image_id)
        for path in ("tags", "tags/latest", "images", "json", "properties"):
            one = registry.ask("GET", f"/v1/repositories/{short}/{path}")
            other = registry.ask("GET", f"/v1/repositories/{full}/{path}")
            assert (one.status, one.body) == (other.status, other.body) == (200, one.body)
        assert registry.ask("DELETE", f"/v1/repositories/{full}/").status == 200
        assert registry.ask("GET", f"/v1/repositories/{short}/tags").status == 404


# --- deletion ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["/", "", "/tags"])
def test_a_deleted_repository_leaves_nothing_but_its_images(
    registry: Registry, repository: str, image_id: str, part: str
) -> None:
    """Tags, metadata, image list and properties go at once."""
    path = f"/v1/repositories/{repository}"
    registry.ask("PUT", f"{path}/", listed(new_id(), image_id))
    registry.tag(repository, "latest", image_id)
    registry.ask("PUT", f"{path}/properties", b'{"access": "private"}')
    answer = registry.ask("DELETE", f"{path}{part}")
    assert (answer.status, answer.body) == (200, TRUE)
    assert registry.ask("GET", f"{path}/tags").body == NO_REPOSITORY
    assert registry.ask("GET", f"{path}/images").body == NO_IMAGES
    assert registry.ask("GET", f"{path}/json").value["last_update"] is None
    assert registry.ask("GET", f"{path}/properties").value == {"access": "public"}
    assert registry.ask("GET", f"/v1/images/{image_id}/layer").status == 200
    answer = registry.ask("DELETE", f"{path}{part}")
    assert (answer.status, answer.body) == (404, NO_REPOSITORY)
    registry.tag(repository, "new", image_id)
    assert registry.ask("GET", f"{path}/images").value == [{"id": image_id}]


def test_deletion_in_three_steps(registry: Registry, repository: str, image_id: str) -> None:
    """202 and a token; the same call with that token; and once more."""
    path = f"/v1/repositories/{repository}/"
    registry.tag(repository, "latest", image_id)
    answer = registry.ask("DELETE", path, headers={"X-Docker-Token": "true"})
    assert (answer.status, answer.body) == (202, b'""')
    token = answer.headers["X-Docker-Token"]
    assert token.endswith(f',repository="{repository}",access=delete')
    assert answer.headers["X-Docker-Endpoints"] == registry.host
    for prefix in ("Token", "Token Token"):
        answer = registry.ask("DELETE", path, headers={"Authorization": f"{prefix} {token}"})
        assert (answer.status, answer.body) == (200, TRUE)
    other = f"/v1/repositories/{new_repository()}/"
    assert registry.ask("DELETE", other, headers={"Authorization": f"Token {token}"}).status == 404
    forged = token.replace(repository, other.split("/", 3)[3].strip("/"))
    assert registry.ask("DELETE", other, headers={"Authorization": f"Token {forged}"}).status == 404


# --- properties -------------------------------------------------------------------------------------------


def test_properties(registry: Registry, repository: str) -> None:
    """Public unless said otherwise; another value does nothing; anything without `access` is refused."""
    path = f"/v1/repositories/{repository}/properties"
    assert registry.ask("GET", path).body == b'{"access": "public"}'
    for sent, read in (("private", "private"), ("secret", "private"), ("public", "public")):
        answer = registry.ask("PUT", path, json.dumps({"access": sent}).encode())
        assert (answer.status, answer.body) == (200, TRUE)
        assert registry.ask("GET", path).value == {"access": read}
    for body in (b"", b"[]", b"{}", b'{"access": 5}'):
        answer = registry.ask("PUT", path, body)
        assert (answer.status, answer.body) == (400, refusal("Invalid data"))


def test_payload_helper_and_server_agree(registry: Registry) -> None:
    """The checksum used throughout these tests is the one of the protocol."""
    image_id = registry.image(b"x")
    headers = registry.ask("GET", f"/v1/images/{image_id}/json").headers
    assert headers["X-Docker-Checksum-Payload"] == payload(image_json(image_id), b"x")
