"""`cas import`: folders of other registries, read into a store.

Layer: tools. Works beside a live server on the store; the folder's own registry is best stopped, or it may change what
is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

from api.access import grants
from api.content.repositories import Access
from api.content.repository import Repository
from api.porting import distribution, oci, v1
from api.porting.folder import Folder
from api.porting.report import Report
from api.porting.terms import Terms
from cas import Store
from tools import moving
from tools.errors import NotOneRepository
from tools.settings import PLACE, Settings, SettingsCommand, with_settings
from tools.ticking import ticking

_DIR = click.argument("folder", metavar="DIR", type=PLACE)
_ACCESS = click.option("--public/--private", default=None, help="Who may pull what this makes. [default_access]")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")


@click.group("import")
def import_() -> None:
    """Bring over what another registry keeps in a folder.

    Works beside a live server, can be stopped at any moment and begun anew: what is there already is not read again,
    and tags that a client has pushed meanwhile stay. What is damaged or missing is named and left out, the rest goes
    on, and the exit code is 1 then. Makes the store if there is none.

    Each of them takes --root DIR and --config FILE like every command, and its own --help.

    \b
    Examples:
      cas import distribution /var/lib/docker-registry --root /srv/cas
      cas import v1 /srv/old-registry
      cas import oci ./layout --repo acme/app
    """


@import_.command("distribution", cls=SettingsCommand)
@with_settings()
@_DIR
@_ACCESS
@_JSON
def distribution_(settings: Settings, folder: Path, *, public: bool | None, as_json: bool) -> None:
    """Import what a registry of the second generation stores.

    DIR is what its configuration calls rootdirectory: docker/registry/v2 lies below it.

    All repositories with their manifests, tags, blobs and referrers. Every digest is proven while it is read.

    \b
    Examples:
      cas import distribution /var/lib/docker-registry
    """
    _run(settings, folder, distribution.check, distribution.read, public=public, as_json=as_json)


@import_.command("oci", cls=SettingsCommand)
@with_settings()
@_DIR
@click.option("--repo", required=True, metavar="REPO", help="The repository to import it into.")
@_ACCESS
@_JSON
def oci_(settings: Settings, folder: Path, repo: str, *, public: bool | None, as_json: bool) -> None:
    """Import an OCI image layout into one repository.

    What index.json names is tagged so; tags of the fallback scheme (sha256-...) become referrers.

    \b
    Examples:
      cas import oci ./layout --repo acme/app
    """
    one = one_repository(repo)

    def read(opened: Folder, store: Store, terms: Terms, report: Report) -> None:
        oci.read(opened, one, store, terms, report)

    _run(settings, folder, oci.check, read, public=public, as_json=as_json)


@import_.command("v1", cls=SettingsCommand)
@with_settings()
@_DIR
@_ACCESS
@_JSON
def v1_(settings: Settings, folder: Path, *, public: bool | None, as_json: bool) -> None:
    """Import what the old Python registry stores.

    DIR is what its configuration calls storage_path: images/ and repositories/ lie below it.

    Images with their ancestors, held against the checksums kept beside them; image lists; tags. What was marked
    private there is private here.

    \b
    Examples:
      cas import v1 /srv/old-registry
    """
    _run(settings, folder, v1.check, v1.read, public=public, as_json=as_json)


def one_repository(text: str) -> Repository:
    """Read the name of one repository.

    Raises:
        NotOneRepository: it stands for many.
        InvalidPattern: it is none.
    """
    if text.endswith(grants.EVERYTHING):
        raise NotOneRepository(f"{text} stands for many repositories: name one")
    return grants.parse_repository(text)


def _run(
    settings: Settings,
    path: Path,
    check: Callable[[Folder], object],
    read: Callable[[Folder, Store, Terms, Report], object],
    *,
    public: bool | None,
    as_json: bool,
) -> None:
    terms = _terms(settings, public=public)
    with Folder(path) as folder:
        check(folder)  # before a store is made
        with Store.open(settings.root, settings.engine, create=True) as store, ticking(store):
            moving.show(lambda report: read(folder, store, terms, report), as_json=as_json)


def _terms(settings: Settings, *, public: bool | None) -> Terms:
    chosen = Access.PUBLIC if public else Access.PRIVATE
    return Terms(
        access=Access(settings.access.default_access) if public is None else chosen,
        clock=time.time,
        max_manifest_bytes=settings.v2.max_manifest_bytes,
        max_json_bytes=settings.http.max_json_bytes,
        v1=settings.v1,
    )
