"""The table of Registry v1's routes, in the order in which they are tried. Read this first.

Paths arrive decoded and without a trailing slash. Longer suffixes come before shorter ones, so that tags and
repositories may be called almost anything: `…/a/tags/json` is the tag `json` of `library/a`.
"""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from api.v1 import handlers_images as images
from api.v1 import handlers_index as index
from api.v1 import handlers_repositories as repositories
from api.v1 import handlers_server as server
from api.v1.call import Handler, Methods, Registry

TABLE: Final[tuple[tuple[str, dict[str, Handler]], ...]] = (
    ("/", {"GET": server.get_root}),
    ("/_ping", {"GET": server.get_ping}),
    ("/_status", {"GET": server.get_status}),
    ("/v1/_ping", {"GET": server.get_ping}),
    ("/v1/_status", {"GET": server.get_status}),
    ("/v1/images/{id}/layer", {"GET": images.get_layer, "PUT": images.put_layer}),
    ("/v1/images/{id}/json", {"GET": images.get_json, "PUT": images.put_json}),
    ("/v1/images/{id}/checksum", {"PUT": images.put_checksum}),
    ("/v1/images/{id}/ancestry", {"GET": images.get_ancestry}),
    ("/v1/images/{id}/files", {"GET": images.get_files}),
    ("/v1/images/{id}/diff", {"GET": images.get_diff}),
    ("/v1/private_images/{id}/layer", {"GET": images.get_layer}),
    ("/v1/private_images/{id}/json", {"GET": images.get_json}),
    ("/v1/private_images/{id}/files", {"GET": images.get_files}),
    ("/v1/repositories/{repo:path}/tags/{tag}/json", {"GET": repositories.get_tag_json}),
    (
        "/v1/repositories/{repo:path}/tags/{tag}",
        {"GET": repositories.get_tag, "PUT": repositories.put_tag, "DELETE": repositories.delete_tag},
    ),
    ("/v1/repositories/{repo:path}/tags", {"GET": repositories.get_tags, "DELETE": repositories.delete_tags}),
    ("/v1/repositories/{repo:path}/images", {"GET": index.get_images, "PUT": index.put_images}),
    ("/v1/repositories/{repo:path}/json", {"GET": repositories.get_repository_json}),
    (
        "/v1/repositories/{repo:path}/properties",
        {"GET": repositories.get_properties, "PUT": repositories.put_properties},
    ),
    ("/v1/repositories/{repo:path}", {"PUT": index.put_repository, "DELETE": index.delete_repository}),
)


def routes(registry: Registry) -> list[Route]:
    """Bind the table to a registry."""
    return [Route(path, Methods(registry, handlers)) for path, handlers in TABLE]
