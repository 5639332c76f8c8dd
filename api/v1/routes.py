"""The table of Registry v1's routes, in the order in which they are tried. Read this first.

Paths arrive decoded and without a trailing slash. Longer suffixes come before shorter ones, so that tags and
repositories may be called almost anything: `…/a/tags/json` is the tag `json` of `library/a`. Each method says what it
needs and whose it is; the gate sees to that before the handler runs.
"""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from api.v1 import handlers_images as images
from api.v1 import handlers_index as index
from api.v1 import handlers_repositories as repositories
from api.v1 import handlers_search as search
from api.v1 import handlers_server as server
from api.v1 import handlers_users as users
from api.v1.call import Entry, Methods, Registry
from api.v1.rights import Need, Side

_IMAGE, _REPO = "/v1/images/{id}", "/v1/repositories/{repo:path}"
_INDEX, _REGISTRY, _BOTH = Side.INDEX, Side.REGISTRY, Side.BOTH

TABLE: Final[tuple[tuple[str, dict[str, Entry]], ...]] = (
    ("/", {"GET": Entry(server.get_root, Need.NOTHING, _BOTH)}),
    ("/_ping", {"GET": Entry(server.get_ping, Need.NOTHING, _BOTH)}),
    ("/_status", {"GET": Entry(server.get_status, Need.NOTHING, _BOTH)}),
    ("/v1/_ping", {"GET": Entry(server.get_ping, Need.NOTHING, _BOTH)}),
    ("/v1/_status", {"GET": Entry(server.get_status, Need.NOTHING, _BOTH)}),
    ("/v1/search", {"GET": Entry(search.get_search, Need.WHOEVER, _BOTH)}),
    (
        "/v1/users",
        {
            "GET": Entry(users.get_users, Need.ACCOUNT, _INDEX),
            "POST": Entry(users.post_users, Need.NOTHING, _INDEX),
        },
    ),
    ("/v1/users/{name}", {"PUT": Entry(users.put_user, Need.ACCOUNT, _INDEX)}),
    (
        f"{_IMAGE}/layer",
        {
            "GET": Entry(images.get_layer, Need.IMAGE, _REGISTRY),
            "PUT": Entry(images.put_layer, Need.UPLOAD, _REGISTRY),
        },
    ),
    (
        f"{_IMAGE}/json",
        {
            "GET": Entry(images.get_json, Need.IMAGE, _REGISTRY),
            "PUT": Entry(images.put_json, Need.UPLOAD, _REGISTRY),
        },
    ),
    (f"{_IMAGE}/checksum", {"PUT": Entry(images.put_checksum, Need.UPLOAD, _REGISTRY)}),
    (f"{_IMAGE}/ancestry", {"GET": Entry(images.get_ancestry, Need.IMAGE, _REGISTRY)}),
    (f"{_IMAGE}/files", {"GET": Entry(images.get_files, Need.IMAGE, _REGISTRY)}),
    (f"{_IMAGE}/diff", {"GET": Entry(images.get_diff, Need.IMAGE, _REGISTRY)}),
    ("/v1/private_images/{id}/layer", {"GET": Entry(images.get_layer, Need.IMAGE, _REGISTRY)}),
    ("/v1/private_images/{id}/json", {"GET": Entry(images.get_json, Need.IMAGE, _REGISTRY)}),
    ("/v1/private_images/{id}/files", {"GET": Entry(images.get_files, Need.IMAGE, _REGISTRY)}),
    (f"{_REPO}/tags/{{tag}}/json", {"GET": Entry(repositories.get_tag_json, Need.PULL, _REGISTRY)}),
    (
        f"{_REPO}/tags/{{tag}}",
        {
            "GET": Entry(repositories.get_tag, Need.PULL, _REGISTRY),
            "PUT": Entry(repositories.put_tag, Need.TAG, _REGISTRY),
            "DELETE": Entry(repositories.delete_tag, Need.DELETE, _REGISTRY),
        },
    ),
    (
        f"{_REPO}/tags",
        {
            "GET": Entry(repositories.get_tags, Need.PULL, _REGISTRY),
            "DELETE": Entry(repositories.delete_tags, Need.DELETE, _REGISTRY),
        },
    ),
    (
        f"{_REPO}/images",
        {
            "GET": Entry(index.get_images, Need.PULL, _INDEX),
            "PUT": Entry(index.put_images, Need.PUSH, _INDEX),
            "DELETE": Entry(index.delete_images, Need.DELETE, _INDEX),
        },
    ),
    (f"{_REPO}/layer/{{id}}/access", {"GET": Entry(index.get_layer_access, Need.PULL, _INDEX)}),
    (f"{_REPO}/auth", {"PUT": Entry(index.put_auth, Need.VOUCH, _INDEX)}),
    (f"{_REPO}/json", {"GET": Entry(repositories.get_repository_json, Need.PULL, _REGISTRY)}),
    (
        f"{_REPO}/properties",
        {
            "GET": Entry(repositories.get_properties, Need.PULL, _REGISTRY),
            "PUT": Entry(repositories.put_properties, Need.OWN, _REGISTRY),
        },
    ),
    (
        _REPO,
        {
            "PUT": Entry(index.put_repository, Need.PUSH, _INDEX),
            "DELETE": Entry(index.delete_repository, Need.DELETE, _BOTH),
        },
    ),
)


def routes(registry: Registry) -> list[Route]:
    """Bind the table to a registry."""
    return [Route(path, Methods(registry, entries)) for path, entries in TABLE]
