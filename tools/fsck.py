"""`cas fsck`: say what of a store is not as promised, and make a lost index anew.

Layer: tools. The engine does the work; this says what it found.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, Final

import click

from cas import CasError, Damaged, Depth, Digest, Finding, Name, RebuildReport, Store, rebuild_index
from tools import exits
from tools.settings import Settings, SettingsCommand, with_settings

_REBUILD: Final = "stop the server and run cas fsck --rebuild-index --force"
_FATAL: Final = (-signal.SIGBUS, -signal.SIGSEGV, -signal.SIGABRT)


@click.command(cls=SettingsCommand)
@with_settings()
@click.option("--quick", "depth", flag_value="quick", default="quick", help="The index against itself and the packs.")
@click.option("--data", "depth", flag_value="data", help="And the checksum of every stored chunk.")
@click.option("--deep", "depth", flag_value="deep", help="And the digest of every blob, end to end.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each finding, and a last one that sums up.")
@click.option("--rebuild-index", "rebuild", is_flag=True, help="Make index/ anew from packs/ instead.")
@click.option("--force", is_flag=True, help="Even if index/ exists: it is moved aside to index.old-N first.")
def fsck(settings: Settings, depth: str, *, as_json: bool, rebuild: bool, force: bool) -> None:
    """Check a store, beside a live server too; changes nothing. Or make the index anew from the packs.

    A check exits 0 when all is well, 4 when something is not. To mend what is damaged, push it again.
    --rebuild-index needs the store for itself: stop the server first. Everything that was ever acknowledged
    comes back: blobs, images, tags, repositories. Exits 1 when something in the packs is damaged, and names it.

    \b
    Examples:
      cas fsck --root /srv/cas
      cas fsck --deep --json --root /srv/cas
      cas fsck --rebuild-index --root /srv/cas
      cas fsck --rebuild-index --force --root /srv/cas   # the index is there, but not to be trusted
    """
    if rebuild:
        _rebuild(settings, force=force)
    elif force:
        click.echo("cas: --force goes with --rebuild-index", err=True)
        raise click.exceptions.Exit(exits.FSCK_USAGE)
    else:
        _check(settings, depth, as_json=as_json)


def _check(settings: Settings, depth: str, *, as_json: bool) -> None:
    code = _apart(lambda: _told(settings, depth, as_json=as_json))
    if code in _FATAL:
        _say(Finding("rows", "reading it ended the process by a signal", "index", _REBUILD), as_json=as_json)
        code = exits.UNMENDED
    if code:
        raise click.exceptions.Exit(code if code > 0 else exits.COULD_NOT_RUN)


def _apart(work: Callable[[], int]) -> int:
    """Run in a process of its own, which a damaged page of the index may end by a signal; return how it ended."""
    child = os.fork()
    if child == 0:
        code = exits.UNEXPECTED
        try:
            code = work()
        except Exception:  # noqa: BLE001 - the outermost frame of this process
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _told(settings: Settings, depth: str, *, as_json: bool) -> int:
    count = 0
    blobs: set[Digest] = set()
    try:
        with Store.open(settings.root, settings.engine) as store:
            for finding in store.check(Depth[depth.upper()]):
                count += 1
                blobs.update(finding.blobs)
                _say(finding, as_json=as_json)
    except Damaged as error:
        count += 1
        _say(Finding("rows", str(error), "index", _REBUILD), as_json=as_json)
    except CasError as error:
        click.echo(f"cas: {error}", err=True)
        return exits.COULD_NOT_RUN
    summary = {"depth": depth, "findings": count, "blobs": len(blobs)}
    text = f"{depth} check: {count:,} findings, {len(blobs):,} blobs concerned"
    click.echo(json.dumps({"summary": summary}) if as_json else text)
    return exits.UNMENDED if count else exits.OK


def _say(finding: Finding, *, as_json: bool) -> None:
    said = _as_dict(finding)
    click.echo(json.dumps(said) if as_json else _line(said))


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "invariant": finding.invariant,
        "what": finding.what,
        "where": finding.where,
        "blobs": [str(digest) for digest in finding.blobs],
        "names": [_name(name) for name in finding.names],
        "remedy": finding.remedy,
    }


def _name(name: Name) -> str:
    """Repositories' own as REPO@DIGEST; of what is no repository's, say what it is."""
    return name.path if name.kind in ("manifest", "link") else f"{name.kind} {name.path}"


def _line(said: dict[str, Any]) -> str:
    whose = "".join(f"\n    {text}" for text in (*said["blobs"], *said["names"]))
    return f"{said['check']} ({said['invariant']}): {said['where']}: {said['what']}; {said['remedy']}{whose}"


def _rebuild(settings: Settings, *, force: bool) -> None:
    report = rebuild_index(settings.root, settings.engine, force=force)
    click.echo(_summary(report))
    for line in report.damaged:
        click.echo(f"damaged: {line}")
    if report.damaged:
        raise click.exceptions.Exit(exits.FINDINGS)


def _summary(report: RebuildReport) -> str:
    return (
        f"index rebuilt from {report.packs:,} packs: "
        f"{report.chunks:,} chunks, {report.blobs:,} blobs, {report.names:,} names"
    )
