"""Two accounts, and every route there is: what one keeps private, the other one and strangers do not get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import pytest

from api.v2.routes import TABLE, Route
from tests.wire.v2.members import ANN, BOB, MANIFEST_TYPE, Members, basic, members
from tests.wire.v2.pushing import code

PRIVATE, OWN = "ann/private", "bob/own"
ROUTES = [(route, method) for route in TABLE for method in route.methods_with_head()]
CONTENT = [(route, method) for route, method in ROUTES if route.path.count("{") == 2]
OUTSIDERS = ["stranger", "token of nobody", "bob", "token of bob"]


@dataclass
class Scene:
    """A registry in which ann keeps something private, and all that names it."""

    registry: Members
    manifest: str
    blob: str
    upload: str

    @property
    def words(self) -> list[str]:
        """What stands behind a repository's name in a path that leads to it."""
        return [self.manifest, self.blob, self.upload, "latest", f"sha256-{self.manifest[7:]}"]

    def headers(self, outsider: str) -> str | None:
        if outsider == "stranger":
            return None
        if outsider == "bob":
            return basic(BOB)
        scopes = f"repository:{PRIVATE}:* repository:{OWN}:* registry:catalog:*"
        return self.registry.token(scopes, who=BOB if outsider == "token of bob" else None)

    def paths(self, route: Route, name: str) -> set[str]:
        """Every path of a route that means something of ann's."""
        text = route.path.replace("{name}", name)
        if "{" not in text:
            return {text}
        before, _, rest = text.partition("{")
        return {f"{before}{word}{rest.partition('}')[2]}" for word in self.words}

    def assert_silent(self, answer: httpx2.Response) -> None:
        """Nothing of ann's stands in an answer, but what the asker said himself."""
        asked = str(answer.request.url)
        told = f"{answer.headers.get('location', '')} {answer.text}".replace(answer.request.url.path, "")
        for word in ("a blob of", PRIVATE, self.manifest, self.blob, self.upload):
            assert word not in told or word in asked


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with members(tmp_path_factory.mktemp("walk") / "root") as registry:
        manifest, blob = registry.push(PRIVATE, ANN)
        registry.push(OWN, BOB)
        place = registry.ask("POST", f"/v2/{PRIVATE}/blobs/uploads/", basic(ANN)).headers["location"]
        yield Scene(registry, manifest, blob, place.rpartition("/")[2])


@pytest.mark.parametrize("outsider", OUTSIDERS)
@pytest.mark.parametrize(("route", "method"), ROUTES, ids=lambda one: getattr(one, "path", one))
def test_no_route_leads_to_what_somebody_else_keeps_private(
    scene: Scene, route: Route, method: str, outsider: str
) -> None:
    """Every method of every route in the table, by every name there is for it; and nothing is changed by trying."""
    header = scene.headers(outsider)
    for path in scene.paths(route, PRIVATE):
        answer = scene.registry.ask(method, path, header)
        if "{name}" in route.path:
            assert answer.status_code == (403 if "bob" in outsider else 401), path
        scene.assert_silent(answer)
    for path in (f"manifests/{scene.manifest}", f"blobs/{scene.blob}", "manifests/latest"):
        assert scene.registry.ask("GET", f"/v2/{PRIVATE}/{path}", basic(ANN)).status_code == 200
    place = f"/v2/{PRIVATE}/blobs/uploads/{scene.upload}"
    assert scene.registry.ask("GET", place, basic(ANN)).status_code == 204


@pytest.mark.parametrize(("route", "method"), CONTENT, ids=lambda one: getattr(one, "path", one))
def test_a_digest_opens_nothing_in_a_repository_of_ones_own(scene: Scene, route: Route, method: str) -> None:
    """Who knows a digest, a tag or the id of an upload has none of the bytes by it."""
    for path in scene.paths(route, OWN):
        if path.endswith("/latest"):
            continue  # bob has a tag of that name himself
        answer = scene.registry.ask(method, path, basic(BOB))
        assert answer.status_code in ({200, 400} if "referrers" in path else {400, 404}), path
        scene.assert_silent(answer)


@pytest.mark.parametrize("source", [f"&from={PRIVATE}", ""])
@pytest.mark.parametrize("outsider", ["bob", "token of bob"])
def test_a_mount_does_not_open_what_somebody_else_keeps_private(scene: Scene, outsider: str, source: str) -> None:
    """The answer is that of a blob which is not there."""
    path = f"/v2/{OWN}/blobs/uploads/?mount={scene.blob}{source}"
    absent = f"/v2/{OWN}/blobs/uploads/?mount=sha256:{'0' * 64}{source}"
    header = scene.headers(outsider)
    there, nowhere = (scene.registry.ask("POST", one, header) for one in (path, absent))
    assert there.status_code == nowhere.status_code == 202
    assert there.headers.keys() == nowhere.headers.keys()
    assert scene.registry.ask("GET", f"/v2/{OWN}/blobs/{scene.blob}", header).status_code == 404


def test_a_manifest_cannot_name_what_somebody_else_keeps_private(scene: Scene) -> None:
    """To name a blob is not to have it."""
    stolen = scene.registry.ask("GET", f"/v2/{PRIVATE}/manifests/latest", basic(ANN)).content
    answer = scene.registry.ask(
        "PUT", f"/v2/{OWN}/manifests/stolen", basic(BOB), content=stolen, headers={"Content-Type": MANIFEST_TYPE}
    )
    assert (answer.status_code, code(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert scene.registry.ask("GET", f"/v2/{OWN}/blobs/{scene.blob}", basic(BOB)).status_code == 404


def test_no_list_shows_what_somebody_else_keeps_private(scene: Scene) -> None:
    """The catalogue of everybody but its owner lacks it."""
    for outsider in OUTSIDERS:
        assert PRIVATE not in scene.registry.ask("GET", "/v2/_catalog", scene.headers(outsider)).text
    assert PRIVATE in scene.registry.ask("GET", "/v2/_catalog", basic(ANN)).text
