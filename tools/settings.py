"""The one settings object, and how it is filled: flags > CAS_* environment > TOML file > defaults.

Layer: tools. Knows click and TOML; the order of precedence is click's own, given a default map. What can be
set is a table elsewhere (`tools/tunables.py`).
"""

from __future__ import annotations

import difflib
import functools
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from api.access.settings import AccessSettings
from api.config import HttpSettings
from api.content.settings import KeepingSettings
from api.origin import Origin
from api.v1.settings import V1Settings
from api.v2.settings import V2Settings
from cas import EngineSettings
from tools import units
from tools.tunables import DEFAULTS, GROUPS, NO_LIMIT, ROWS, Section, flag, unit, variable

DEFAULT_ROOT: Final = Path("data")
DEFAULT_BIND: Final = "127.0.0.1:5000"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
MOST_DEFAULT_WORKERS: Final = 4  # past it, a default would surprise whoever shares the machine
MOST_WORKERS: Final = 256
MOST_BYTES: Final = 1 << 60  # what no disk holds; the system calls that take a size take no more than eight times that
MOST_COUNT: Final = (1 << 31) - 1  # what fits where the system takes a count, such as listen(2)
LONGEST_S: Final = 7 * 24 * 3600  # the system calls that wait take no more than some weeks


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that one run of a command was told."""

    root: Path
    bind: str
    allow_open: bool
    tls_cert: Path | None
    tls_key: Path | None
    workers: int
    log_level: str
    access_log: str | None
    metrics: str | None
    engine: EngineSettings
    access: AccessSettings
    http: HttpSettings
    v1: V1Settings
    v2: V2Settings
    keeping: KeepingSettings


def default_workers() -> int:
    return min(MOST_DEFAULT_WORKERS, len(os.sched_getaffinity(0)))


# The engine says whose a place is and what to do about it; click would only say that it cannot be read.
PLACE: Final = click.Path(readable=False, path_type=Path)


class Size(click.ParamType[int | None]):
    """A number of bytes, plainly or with a unit; `none` where no limit is a choice."""

    name = "size"

    def __init__(self, *, least: float, most: float, unlimited: bool) -> None:
        self._least, self._most, self._unlimited = int(least), int(most), unlimited

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if self._unlimited and value in (None, NO_LIMIT):
            return None
        try:
            size = value if isinstance(value, int) else units.parse_size(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        if size < self._least:
            self.fail(f"{value} is less than {units.exact_size(self._least)}.", param, ctx)
        if size > self._most:
            self.fail(f"{value} is more than {units.exact_size(self._most)}.", param, ctx)
        return size


class Text(click.ParamType[str | None]):
    """Text, or `none`."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | None:  # noqa: ARG002
        return None if value in (None, NO_LIMIT) else str(value)


class Platform(click.ParamType[str]):
    """`os/architecture`, and a variant if need be."""

    name = "platform"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _PLATFORM.fullmatch(str(value)):
            self.fail(f"{value!r} is no platform, such as linux/amd64 or linux/arm64/v8.", param, ctx)
        return str(value)


class Url(click.ParamType[str | None]):
    """`http[s]://host[:port]`, or `none`."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | None:
        if value in (None, NO_LIMIT):
            return None
        try:
            return str(Origin.parse(str(value)))
        except ValueError as error:
            self.fail(f"{error}, such as https://registry.example.", param, ctx)


class Number(click.FloatRange):
    """A number in a range; `nan` compares with nothing and would slip through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class SettingOption(click.Option):
    """A click option that knows under which heading of `--help` it stands."""

    def __init__(self, name: str, section: Section, *, shown: str, **attributes: Any) -> None:
        reason = ROWS[name].reason.replace("`", "")
        super().__init__([flag(name), name], envvar=variable(name), help=reason, **attributes)
        self.section, self._shown = section, shown

    def get_error_hint(self, ctx: click.Context | None) -> str:
        return f"{super().get_error_hint(ctx)} (or {variable(str(self.name))})"

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:  # noqa: ARG002
        return {"default": self._shown}  # in people's units; a range would say more than anybody asks


# What other servers call it, where click would guess by the letters: --root for --port.
ELSEWHERE: Final = {
    **dict.fromkeys(("--port", "--host", "--address", "--listen", "-p"), "--bind HOST:PORT"),
    **dict.fromkeys(("--data", "--dir", "--path", "--store", "-d"), "--root DIR"),
}


class SettingsCommand(click.Command):
    """A command whose `--help` has one heading a section, and of whose flags for one thing only one may be given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        told = args[: args.index("--")] if "--" in args else args
        given: dict[str, str] = {}
        for param in self.params:
            if isinstance(param, click.Option) and param.is_flag:
                for names in (param.opts, param.secondary_opts):
                    one = next((name for name in names if name in told), None)
                    if one is not None and given.setdefault(str(param.name), one) != one:
                        raise click.UsageError(f"{given[str(param.name)]} or {one}, not both.", ctx)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            ours = ELSEWHERE.get(error.option_name)
            if ours is None:
                raise
            raise click.UsageError(f"No such option '{error.option_name}'. Did you mean '{ours}'?", ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[Section, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                section = param.section if isinstance(param, SettingOption) else Section.COMMAND
                headings.setdefault(section, []).append(record)
        for section in Section:
            if section in headings:
                with formatter.section(section):
                    formatter.write_dl(headings[section])


def with_settings(*shown: Section) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command `settings`. It takes every flag; `--help` lists those of the sections shown."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**values: Any) -> Any:
            told = {name: values.pop(name) for name in ROWS}
            return command(settings=_assemble(told), **values)

        options = [*_options(shown), _config_option()]
        # Backwards, as decorators would have left them: click turns the list round.
        run.__click_params__ = [*getattr(command, "__click_params__", []), *reversed(options)]  # type: ignore[attr-defined]
        return run

    return decorate


def was_said(name: str) -> bool:
    """Tell whether the command that runs got a setting from somewhere, be it what the default is."""
    return click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT


def _assemble(told: dict[str, Any]) -> Settings:
    return Settings(
        root=told["root"],
        bind=told["bind"],
        allow_open=told["allow_open"],
        tls_cert=told["tls_cert"],
        tls_key=told["tls_key"],
        workers=told["workers"],
        log_level=told["log_level"],
        access_log=told["access_log"] or None,
        metrics=told["metrics"] or None,
        engine=GROUPS[Section.ENGINE].fill(told),
        access=GROUPS[Section.ACCESS].fill(told),
        http=GROUPS[Section.HTTP].fill(told),
        v1=GROUPS[Section.V1].fill(told),
        v2=GROUPS[Section.V2].fill(told),
        keeping=GROUPS[Section.KEEPING].fill(told),
    )


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_PLATFORM: Final = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?", re.ASCII)

_NAMED: Final = (*ROWS, "config")  # by flags and variables; what is in the file cannot name another one

_BY_HAND: Final[dict[str, dict[str, Any]]] = {
    "root": {
        "type": PLACE,
        "default": DEFAULT_ROOT,
        "shown": f"./{DEFAULT_ROOT}",
        "metavar": "DIR",
    },
    "bind": {"default": DEFAULT_BIND, "shown": DEFAULT_BIND, "metavar": "HOST:PORT", "type": click.STRING},
    "allow_open": {"is_flag": True, "default": False, "shown": "false"},
    "tls_cert": {"type": PLACE, "default": None, "shown": NO_LIMIT, "metavar": "FILE"},
    "tls_key": {"type": PLACE, "default": None, "shown": NO_LIMIT, "metavar": "FILE"},
    "workers": {
        "type": click.IntRange(1, MOST_WORKERS),
        "default": default_workers,
        "shown": f"cores, at most {MOST_DEFAULT_WORKERS}",
        "metavar": "N",
    },
    "log_level": {
        "type": click.Choice(LOG_LEVELS),
        "default": "warning",
        "shown": "warning",
        "metavar": "LEVEL",
    },
    "access_log": {"type": Text(), "default": None, "shown": NO_LIMIT, "metavar": "FILE|-"},
    "metrics": {"type": Text(), "default": None, "shown": NO_LIMIT, "metavar": "HOST:PORT"},
}


def _options(shown: tuple[Section, ...]) -> list[click.Option]:
    made: list[click.Option] = []
    for section, group in GROUPS.items():
        for name in group.rows:
            attributes = _BY_HAND[name] if section is Section.COMMAND else _tunable(name)
            hidden = section not in shown and name != "root"
            made.append(SettingOption(name, section, hidden=hidden, **attributes))
    return made


def _tunable(name: str) -> dict[str, Any]:
    row, default, what = ROWS[name], DEFAULTS[name], unit(name)
    kind: click.ParamType[Any]
    match what:
        case _ if row.choices:
            kind = click.Choice(row.choices)
        case "url":
            kind = Url()
        case "platform":
            kind = Platform()
        case "bytes":
            kind = Size(least=row.least, most=row.most or MOST_BYTES, unlimited=default is None)
        case "choice":
            kind = click.BOOL
        case "text":
            kind = Text()
        case _ if isinstance(default, int):
            kind = click.IntRange(int(row.least), int(row.most or MOST_COUNT))
        case _:
            kind = Number(row.least, LONGEST_S if row.most is None else row.most)
    metavar = "|".join(row.choices) or _METAVARS.get(name) or _METAVARS.get(what, what.upper())
    default = str(default) if row.choices else default  # click would take a member for its name
    return {"type": kind, "default": default, "shown": shown_default(name), "metavar": metavar}


_METAVARS: Final = {"bytes": "SIZE", "count": "N", "choice": "true|false", "htpasswd": "FILE"}


def shown_default(name: str) -> str:
    """Give the default as an operator would write it."""
    if name in _BY_HAND:
        return str(_BY_HAND[name]["shown"])
    match DEFAULTS[name]:
        case None:
            return NO_LIMIT
        case bool(choice):
            return str(choice).lower()
        case int(size) if unit(name) == "bytes":
            return units.exact_size(size)
        case value:
            return f"{value:.12g}" if isinstance(value, float) else str(value)


def _config_option() -> click.Option:
    return click.Option(
        ["--config"],
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="CAS_CONFIG",
        metavar="FILE",
        is_eager=True,  # the file must be read before the flags it may speak for
        expose_value=False,
        callback=_read_config,
        help='TOML file of settings, each named as its flag: pack_bytes = "1GiB".',
    )


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    _name_unknown_variables()
    if path is None:
        return
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise click.UsageError(f"cannot read {path}: {error}.", ctx) from error
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"{path} is not TOML: {error}.", ctx) from error
    unknown = sorted(set(told) - set(ROWS))
    if unknown and isinstance(told[unknown[0]], dict):
        raise click.UsageError(f"{path}: [{unknown[0]}]: the file is flat; write its settings without a heading.", ctx)
    if unknown:
        near = _nearest(unknown[0].replace("-", "_"), ROWS)
        hint = f"; did you mean {near}?" if near else "."
        raise click.UsageError(f"{path}: unknown setting {unknown[0]!r}{hint} `cas serve --help` lists all.", ctx)
    for option in ctx.command.params:
        if option.name in told:
            _check(ctx, path, option, told[option.name])
    ctx.default_map = told


def _name_unknown_variables() -> None:
    """Say which variables look like settings and are none; it may be other software's that they are."""
    known = {variable(name) for name in _NAMED}
    told = []
    for name in sorted(name for name, value in os.environ.items() if name.startswith(variable("")) and value):
        if name not in known:
            near = _nearest(name.removeprefix(variable("")).lower(), _NAMED)
            told.append(f"{name} (did you mean {variable(near)}?)" if near else name)
    if told:
        what = f"these variables are no settings and count for nothing: {', '.join(told)}"
        click.echo(f"cas: {what}; `cas serve --help` lists all", err=True)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _check(ctx: click.Context, path: Path, option: click.Parameter, value: object) -> None:
    """Complain about a value as the file's fault; click would blame a flag that nobody gave."""
    try:
        wrong = _unfit(option.type, value)
        if wrong:
            option.type.fail(wrong)
        option.type.convert(value, None, None)
    except click.BadParameter as error:
        raise click.UsageError(f"{path}: {option.name}: {error.message}", ctx) from error


def _unfit(kind: click.ParamType[Any], value: object) -> str | None:
    """Say what is wrong with a value of TOML, which has kinds of its own, before click takes it for text."""
    match value:
        case bool():
            return None if kind is click.BOOL else f"{str(value).lower()} is neither text nor a number."
        case str():
            return f"{value!r} has a control character." if _CONTROL.search(value) else None
        case float() if isinstance(kind, click.types.IntParamType):
            return f"{value} is not a whole number."
        case int() | float() if kind is click.BOOL:
            return f"{value} is neither true nor false."
        case int() | float():
            return None if isinstance(kind, Size | Number | click.types.IntParamType) else f"{value} is not text."
        case _:
            return f"{value!r} is neither text nor a number."
