"""`cas fsck`: say what of a store is not as promised, mend it, and make a lost index anew.

Layer: tools. The engine does the work; this says what it found.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from api.content.whereabouts import Whereabouts
from cas import (
    LOST,
    REBUILD,
    CasError,
    Damaged,
    Depth,
    Finding,
    IndexUnfit,
    NotAStore,
    RebuildReport,
    Scope,
    Store,
    check_source,
    demand_no_half,
    inspect_index,
    inspect_manifest,
    mend_manifest,
    rebuild_index,
)
from tools import exits
from tools.fsck_report import Report
from tools.pace import MB
from tools.priority import give_way
from tools.settings import Settings, SettingsCommand, with_settings
from tools.ticking import ticking
from tools.units import counted

_FOLDER: Final = click.Path(readable=False, path_type=Path, resolve_path=True)
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_prctl = ctypes.CDLL(None).prctl
_FATAL: Final = (-signal.SIGBUS, -signal.SIGSEGV, -signal.SIGABRT)


class _Command(SettingsCommand):
    """Wrong usage has a code of its own here, by the convention of fsck(8)."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except click.UsageError as error:
            error.show()
            raise click.exceptions.Exit(exits.FSCK_USAGE) from None


class Part(click.ParamType[tuple[int, int]]):
    """`N/T`: the N-th of T parts."""

    name = "part"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        number, slash, parts = str(value).partition("/")
        if not (slash and number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
            self.fail(f"{value!r} is not a part, such as 1/7 for the first of seven.", param, ctx)
        return int(number), int(parts)


@click.command(cls=_Command)
@with_settings()
@click.option("--quick", "depth", flag_value="quick", default="quick", help="The index against itself and the packs.")
@click.option("--data", "depth", flag_value="data", help="And the checksum of every stored chunk.")
@click.option("--deep", "depth", flag_value="deep", help="And the digest of every blob, end to end.")
@click.option("--subset", type=Part(), metavar="N/T", help="Read only the N-th of T parts of the bytes and blobs.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="MB/s", help="Read no faster than that.")
@click.option("--repair", is_flag=True, help="Set damaged packs aside; what is lost with them answers 404.")
@click.option("--from", "source", type=_FOLDER, metavar="DIR", help="With --repair: a backup that has it still.")
@click.option("--dry-run", is_flag=True, help="With --repair: say what it would do, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each finding, and a last one that sums up.")
@click.option("--rebuild-index", "rebuild", is_flag=True, help="Make index/ anew from packs/ instead.")
@click.option("--force", is_flag=True, help="Even if index/ exists: it goes to index.old-N.")
def fsck(  # noqa: PLR0913 - a parameter a flag
    settings: Settings,
    depth: str,
    *,
    subset: tuple[int, int] | None,
    rate: float | None,
    repair: bool,
    source: Path | None,
    dry_run: bool,
    as_json: bool,
    rebuild: bool,
    force: bool,
) -> None:
    """Check a store, beside a live server too. Or mend it, or make the index anew from the packs.

    A check changes nothing but its note of what was read when, and exits 0 when all is well, 4 when something is not.
    --subset 1/7 today, 2/7 tomorrow and so on reads all of it in a week. --repair (which looks at every
    checksum unless --deep is given) keeps damaged packs in quarantine/ and exits 1 when all was mended: blobs that
    were lost answer 404, and a push of the same content, or --from with a backup that has them, brings them back.
    --rebuild-index needs the store for itself: stop the server first. Everything that was ever acknowledged
    comes back: blobs, images, tags, repositories. Exits 1 when something in the packs is damaged, and names it.

    \b
    Examples:
      cas fsck --root /srv/cas
      cas fsck --deep --json --root /srv/cas
      cas fsck --data --subset 1/7 --rate 50 --root /srv/cas
      cas fsck --repair --from /mnt/backup/cas --root /srv/cas
      cas fsck --rebuild-index --root /srv/cas
      cas fsck --rebuild-index --force --root /srv/cas   # the index is there, but not to be trusted
    """
    _check_usage(
        {
            "--force goes with --rebuild-index": force and not rebuild,
            "--dry-run goes with --repair": dry_run and not repair,
            "--from goes with --repair": bool(source) and not repair,
            "--from and --dry-run are two things": bool(source) and dry_run,
            "--from names another folder than --root": source == settings.root.resolve(),
            "--subset and --rate go with a check": bool(subset or rate) and (repair or rebuild),
            "--repair and --rebuild-index are two things": repair and rebuild,
        }
    )
    if rebuild:
        _rebuild(settings, force=force)
        return
    wanted = Depth.DATA if repair and depth == "quick" else Depth[depth.upper()]
    report = Report(settings.root, wanted, as_json=as_json, bytes_per_s=rate and rate * MB)
    scope = Scope(wanted, *(subset or (1, 1)), report.read)
    mend, look = partial(_mend, settings, report, source, dry_run=dry_run), partial(report.look, scope=scope)
    _guarded(mend if repair else look, settings, report, mends=repair, reading=not repair or dry_run)


def _check_usage(mistakes: dict[str, bool]) -> None:
    for mistake, made in mistakes.items():
        if made:
            click.echo(f"cas: {mistake}", err=True)
            raise click.exceptions.Exit(exits.FSCK_USAGE)


def _guarded(work: Callable[[Store], int], settings: Settings, report: Report, *, mends: bool, reading: bool) -> None:
    code = _apart(lambda: _opened(work, settings, report, mends=mends, reading=reading))
    if code == -signal.SIGBUS and shutil.disk_usage(settings.root).free < MB:  # a page that was mapped got no room
        click.echo("cas: the disk is full; free some space and try again", err=True)
    elif code in _FATAL:
        report.stop(Finding("rows", "reading it ended the process by a signal", "index", REBUILD))
        code = exits.UNMENDED
    if code:
        raise click.exceptions.Exit(code if code > 0 else exits.COULD_NOT_RUN)


def _apart(work: Callable[[], int]) -> int:
    """Run in a process of its own, which a damaged page of the index may end by a signal; return how it ended."""
    parent, child = os.getpid(), os.fork()
    if child == 0:
        code = exits.UNEXPECTED
        try:
            _end_with(parent)
            code = work()
            exits.flush()
        except BrokenPipeError:  # whoever read it has enough
            code = exits.COULD_NOT_RUN
        except Exception as error:  # noqa: BLE001 - the outermost frame of this process
            code = exits.UNEXPECTED if exits.report(error) == exits.UNEXPECTED else exits.COULD_NOT_RUN
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _end_with(parent: int) -> None:
    """See to it that this process does not outlive another, however that one ends, and whatever this one is doing."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a terminal sends it to both, and the parent has the word
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it ended before that
        os._exit(exits.COULD_NOT_RUN)


def _opened(work: Callable[[Store], int], settings: Settings, report: Report, *, mends: bool, reading: bool) -> int:
    try:
        if finding := inspect_manifest(settings.root, settings.engine):
            if reading or not _makes_manifest(settings):
                return report.stop(finding)
            report.mended(finding)
        if finding := inspect_index(settings.root, settings.engine, reading=reading):  # before opening changes anything
            return report.stop(finding)
        if mends:  # be it only said: a dry run is refused as what it tells of would be
            demand_no_half(settings.root, settings.engine)
        with Store.open(settings.root, settings.engine, reading=reading) as store, ticking(store):
            give_way()
            return work(store)
    except Damaged as error:
        return report.stop(Finding("rows", str(error), "index", REBUILD))
    except CasError as error:
        click.echo(f"cas: {error}", err=True)
        return exits.COULD_NOT_RUN


def _makes_manifest(settings: Settings) -> bool:
    """Make `store.json` anew; say whether what is left of the store proves what has to be in it."""
    try:
        mend_manifest(settings.root, settings.engine)
    except NotAStore:
        return False
    return True


def _mend(settings: Settings, report: Report, source: Path | None, store: Store, *, dry_run: bool) -> int:
    with nullcontext() if source is None else _other(source, settings) as other:
        return report.mend(store, dry_run=dry_run, other=other)


def _other(folder: Path, settings: Settings) -> Store:
    """Open the store that has what this one lost.

    Raises:
        OpenError: it cannot be.
    """
    check_source(folder)
    try:
        finding = inspect_index(folder, settings.engine, reading=True)
        if finding is None:
            return Store.open(folder, settings.engine, reading=True)
        what = finding.what
    except Damaged as error:
        what = str(error)
    raise IndexUnfit(f"{folder} cannot be read: {what}; cas fsck --rebuild-index --force --root {folder} mends that")


def _rebuild(settings: Settings, *, force: bool) -> None:
    report = rebuild_index(settings.root, settings.engine, force=force)
    click.echo(_summary(report))
    names = _concerned(settings, report)
    for line in report.damaged:
        whose = f"; it concerns {', '.join(names[line])}; {LOST}" if line in names else ""
        click.echo(f"damaged: {line}{whose}")
    if report.damaged:
        raise click.exceptions.Exit(exits.FINDINGS)


def _concerned(settings: Settings, report: RebuildReport) -> dict[str, list[str]]:
    """Return who needs the blobs that lines of a report tell of."""
    if not report.concerned:
        return {}
    with Store.open(settings.root, settings.engine) as store:
        places = Whereabouts(store)
        return {line: places.of_blob(digest) for line, digest in report.concerned.items()}


def _summary(report: RebuildReport) -> str:
    return (
        f"index rebuilt from {counted(report.packs, 'pack')}: {counted(report.chunks, 'chunk')}, "
        f"{counted(report.blobs, 'blob')}, {counted(report.names, 'name')}"
    )
