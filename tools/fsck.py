"""`cas fsck`: say what of a store is not as promised, mend it, and make a lost index anew.

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

from api.content.whereabouts import Whereabouts
from cas import CasError, Damaged, Depth, Finding, RebuildReport, Store, rebuild_index
from tools import exits
from tools.priority import give_way
from tools.settings import Settings, SettingsCommand, with_settings

_REBUILD: Final = "stop the server and run cas fsck --rebuild-index --force"
_FATAL: Final = (-signal.SIGBUS, -signal.SIGSEGV, -signal.SIGABRT)


class _Command(SettingsCommand):
    """Wrong usage has a code of its own here, by the convention of fsck(8)."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except click.UsageError as error:
            error.show()
            raise click.exceptions.Exit(exits.FSCK_USAGE) from None


@click.command(cls=_Command)
@with_settings()
@click.option("--quick", "depth", flag_value="quick", default="quick", help="The index against itself and the packs.")
@click.option("--data", "depth", flag_value="data", help="And the checksum of every stored chunk.")
@click.option("--deep", "depth", flag_value="deep", help="And the digest of every blob, end to end.")
@click.option("--repair", is_flag=True, help="Set damaged packs aside; what is lost with them answers 404.")
@click.option("--dry-run", is_flag=True, help="With --repair: say what it would do, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each finding, and a last one that sums up.")
@click.option("--rebuild-index", "rebuild", is_flag=True, help="Make index/ anew from packs/ instead.")
@click.option("--force", is_flag=True, help="Even if index/ exists: it is moved aside to index.old-N first.")
def fsck(
    settings: Settings, depth: str, *, repair: bool, dry_run: bool, as_json: bool, rebuild: bool, force: bool
) -> None:
    """Check a store, beside a live server too. Or mend it, or make the index anew from the packs.

    A check changes nothing and exits 0 when all is well, 4 when something is not. --repair (which looks at every
    checksum unless --deep is given) keeps damaged packs in quarantine/ and exits 1 when all was mended: blobs that
    were lost answer 404, and a push of the same content brings them back.
    --rebuild-index needs the store for itself: stop the server first. Everything that was ever acknowledged
    comes back: blobs, images, tags, repositories. Exits 1 when something in the packs is damaged, and names it.

    \b
    Examples:
      cas fsck --root /srv/cas
      cas fsck --deep --json --root /srv/cas
      cas fsck --repair --root /srv/cas
      cas fsck --rebuild-index --root /srv/cas
      cas fsck --rebuild-index --force --root /srv/cas   # the index is there, but not to be trusted
    """
    if rebuild:
        _rebuild(settings, force=force)
    elif force or (dry_run and not repair):
        click.echo("cas: --force goes with --rebuild-index, --dry-run with --repair", err=True)
        raise click.exceptions.Exit(exits.FSCK_USAGE)
    elif repair:
        deep = Depth.DEEP if depth == "deep" else Depth.DATA
        _guarded(lambda store: _mend(store, deep, dry_run=dry_run, as_json=as_json), settings, as_json=as_json)
    else:
        looked = Depth[depth.upper()]
        _guarded(lambda store: _look(store, looked, as_json=as_json), settings, as_json=as_json)


def _guarded(work: Callable[[Store], int], settings: Settings, *, as_json: bool) -> None:
    code = _apart(lambda: _opened(work, settings, as_json=as_json))
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


def _opened(work: Callable[[Store], int], settings: Settings, *, as_json: bool) -> int:
    try:
        with Store.open(settings.root, settings.engine) as store:
            give_way()
            return work(store)
    except Damaged as error:
        _say(Finding("rows", str(error), "index", _REBUILD), as_json=as_json)
        return exits.UNMENDED
    except CasError as error:
        click.echo(f"cas: {error}", err=True)
        return exits.COULD_NOT_RUN


def _look(store: Store, depth: Depth, *, as_json: bool) -> int:
    found, places = list(store.check(depth)), Whereabouts(store)
    for finding in found:
        _say(finding, places, as_json=as_json)
    blobs = {digest for finding in found for digest in finding.blobs}
    summary = {"depth": depth.name.lower(), "findings": len(found), "blobs": len(blobs)}
    text = f"{depth.name.lower()} check: {len(found):,} findings, {len(blobs):,} blobs concerned"
    click.echo(json.dumps({"summary": summary}) if as_json else text)
    return exits.UNMENDED if found else exits.OK


def _mend(store: Store, depth: Depth, *, dry_run: bool, as_json: bool) -> int:
    places = Whereabouts(store)
    report = store.repair(depth, dry_run=dry_run)
    for finding in report.found:
        _say(finding, places, as_json=as_json)
    left = [] if dry_run else report.left
    summary = {
        "depth": depth.name.lower(),
        "findings": len(report.found),
        "packs": [f"{pack:016x}" for pack in report.packs],
        "lost": [str(digest) for digest in report.lost],
        "left": len(left),
        "dry_run": dry_run,
    }
    would = "would be " if dry_run else ""
    text = (
        f"repair: {len(report.found):,} findings; {len(report.packs):,} packs {would}set aside in quarantine/, "
        f"{len(report.lost):,} blobs {would}answered as missing until they are pushed again, {len(left):,} not mended"
    )
    click.echo(json.dumps({"summary": summary}) if as_json else text)
    for finding in () if as_json else left:
        click.echo(f"not mended: {finding.where}: {finding.what}; {finding.remedy}")
    if not report.found:
        return exits.OK
    return exits.UNMENDED if left or dry_run else exits.MENDED


def _say(finding: Finding, places: Whereabouts | None = None, *, as_json: bool) -> None:
    said = {
        "check": finding.check,
        "invariant": finding.invariant,
        "what": finding.what,
        "where": finding.where,
        "blobs": [str(digest) for digest in finding.blobs],
        "names": [] if places is None else places.of(finding.blobs, finding.names),
        "remedy": finding.remedy,
    }
    click.echo(json.dumps(said) if as_json else _line(said))


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
