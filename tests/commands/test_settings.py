"""Where a setting's value comes from, and what is said about one that cannot be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from api.access.settings import AccessSettings, Mode
from api.config import HttpSettings
from api.content.settings import KeepingSettings
from api.v1.settings import V1Settings
from api.v2.settings import V2Settings
from cas import EngineSettings
from tools.settings import (
    DEFAULT_BIND,
    DEFAULT_ROOT,
    Settings,
    SettingsCommand,
    default_workers,
    shown_default,
    with_settings,
)
from tools.tunables import DEFAULTS, GROUPS, ROWS, Group, Section, flag, unit, variable


def told(
    *arguments: str, env: dict[str, str] | None = None, toml: str | None = None, tmp_path: Path | None = None
) -> Settings:
    """Give what a command would be told; fails on a refusal."""
    given: list[Settings] = []
    result = invoke(given, arguments, env=env, toml=toml, tmp_path=tmp_path)
    assert result.exit_code == 0, result.output
    return given[0]


def refusal(
    *arguments: str, env: dict[str, str] | None = None, toml: str | None = None, tmp_path: Path | None = None
) -> str:
    """Give what the operator reads when the settings are refused."""
    result = invoke([], arguments, env=env, toml=toml, tmp_path=tmp_path)
    assert result.exit_code == 2, result.output
    return result.output


def invoke(
    given: list[Settings],
    arguments: Iterable[str],
    *,
    env: dict[str, str] | None,
    toml: str | None,
    tmp_path: Path | None,
) -> Result:
    @click.command(cls=SettingsCommand)
    @with_settings(*Section)
    def probe(settings: Settings) -> None:
        given.append(settings)

    no_machine_settings = dict.fromkeys([*map(variable, ROWS), "CAS_CONFIG"], "")
    extra: list[str] = []
    if toml is not None:
        assert tmp_path is not None
        (tmp_path / "cas.toml").write_text(toml, encoding="utf-8")
        extra = ["--config", str(tmp_path / "cas.toml")]
    return CliRunner().invoke(probe, [*extra, *arguments], env=no_machine_settings | (env or {}))


def test_without_a_word_the_defaults_hold() -> None:
    """No flag, no variable, no file: the documented defaults."""
    assert told() == Settings(
        root=DEFAULT_ROOT,
        bind=DEFAULT_BIND,
        allow_open=False,
        tls_cert=None,
        tls_key=None,
        workers=default_workers(),
        log_level="warning",
        access_log=None,
        metrics=None,
        engine=EngineSettings(),
        access=AccessSettings(),
        http=HttpSettings(),
        v1=V1Settings(),
        v2=V2Settings(),
        keeping=KeepingSettings(),
    )


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    """One setting, told in one more place at each step."""
    file, env = 'bind = "127.0.0.1:1"', {"CAS_BIND": "127.0.0.1:2"}
    assert told().bind == DEFAULT_BIND
    assert told(toml=file, tmp_path=tmp_path).bind == "127.0.0.1:1"
    assert told(toml=file, env=env, tmp_path=tmp_path).bind == "127.0.0.1:2"
    assert told("--bind", "127.0.0.1:3", toml=file, env=env, tmp_path=tmp_path).bind == "127.0.0.1:3"


@pytest.mark.parametrize(("text", "meant"), [("", None), ("none", None), ("-", "-"), ("a/b.log", "a/b.log")])
def test_an_access_log_is_a_file_or_standard_output_or_nothing(text: str, meant: str | None) -> None:
    """Nothing is the default, and can be said to put out what the environment says."""
    assert told("--access-log", text, env={"CAS_ACCESS_LOG": "other.log"}).access_log == meant


def test_the_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    """CAS_CONFIG does what --config does."""
    (tmp_path / "x.toml").write_text("workers = 3")
    assert told(env={"CAS_CONFIG": str(tmp_path / "x.toml")}).workers == 3


EXAMPLES = {
    "inline_bytes": "512KiB",  # of less than others
    "bytes": "2MiB",
    "seconds": "7777",
    "share": "0.25",
    "count": "7",
    "choice": "false",
    "text": "x.example",
    "url": "https://x.example",
    "platform": "linux/arm64/v8",
}
VALUES: dict[str, object] = {"512KiB": 512 << 10, "2MiB": 2 << 20, "7777": 7777, "0.25": 0.25, "7": 7, "false": False}


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_tunable_can_be_told_in_all_three_places(name: str, tmp_path: Path) -> None:
    """The same name as flag, variable and key, for each row of the table."""
    text = ROWS[name].choices[-1] if ROWS[name].choices else EXAMPLES.get(name, EXAMPLES[unit(name)])
    quoted = f'"{text}"' if unit(name) in {"bytes", "text", "url", "platform"} else text
    for settings in (
        told(flag(name), text),
        told(env={variable(name): text}),
        told(toml=f"{name} = {quoted}", tmp_path=tmp_path),
    ):
        parts = dataclasses.asdict(settings)
        flat = parts["engine"] | parts["http"] | parts["access"] | parts["keeping"]
        for version in ("v1", "v2"):
            flat |= {f"{version}_{key}": value for key, value in parts[version].items()}
        assert flat == DEFAULTS | {name: VALUES.get(text, text)}
        assert {type(value) for value in flat.values()} >= {Mode}


@pytest.mark.parametrize("group", [group for group in GROUPS.values() if group.values])
def test_the_table_has_a_row_for_every_field_and_no_other(group: Group) -> None:
    """A new tunable of the engine or the edge can be set by operators on the day it is born."""
    assert list(group.rows) == list(group.defaults())


def test_every_setting_has_a_name_of_its_own() -> None:
    """One name, one setting."""
    assert len(ROWS) == sum(len(group.rows) for group in GROUPS.values())


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_default_can_be_written_out(name: str) -> None:
    """What the help shows as the default is a value that is taken, and the same one."""
    assert told(flag(name), shown_default(name)) == told()


@pytest.mark.parametrize("text", ["none", "5GiB"])
def test_a_limit_can_be_lifted_where_that_is_a_choice(text: str) -> None:
    """`none` means no limit."""
    assert told("--max-layer-bytes", text).http.max_layer_bytes == (None if text == "none" else 5 << 30)


def test_no_limit_is_refused_where_it_is_no_choice() -> None:
    """A pack without end is not offered."""
    assert "not a size" in refusal("--pack-bytes", "none")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workers", "0"], "0 is not in the range"),
        (["--workers", "many"], "'many' is not a valid integer"),
        (["--pack-bytes", "1"], "1 is less than 1MiB"),
        (["--pack-bytes", "lots"], "'lots' is not a size"),
        (["--pack-bytes", "-5MiB"], "'-5MiB' is not a size"),
        (["--pack-bytes", "12GiB"], "12GiB is more than 2GiB"),
        (["--run-bytes", "2GiB"], "2GiB is more than 1GiB"),
        (["--inline-bytes", "2MiB"], "2MiB is more than 1MiB"),
        (["--map-bytes", "99999999999999999999"], "99999999999999999999 is more than"),
        (["--max-readers", "9999999"], "9999999 is not in the range"),
        (["--threads", "99999999999"], "99999999999 is not in the range"),
        (["--reserve-share", "1.5"], "1.5 is not in the range"),
        (["--grace-s", "nan"], "'nan' is not a number"),
        (["--grace-s", "inf"], "inf is not in the range"),
        (["--stall-s", "-1"], "-1.0 is not in the range"),
        (["--log-level", "loud"], "'loud' is not one of"),
        (["--mode", "closed"], "'closed' is not one of 'open', 'auth', 'token'"),
        (["--public-url", "registry.example"], "'registry.example' is not http[s]://host[:port]"),
        (["--v1-platform", "amd64"], "'amd64' is no platform, such as linux/amd64 or linux/arm64/v8."),
        (["--v1-platform", "none"], "'none' is no platform"),
        (["--public-url", "https://registry.example/path"], "is not http[s]://host[:port]"),
        (["--config", "nowhere.toml"], "'nowhere.toml' does not exist"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(arguments: list[str], says: str) -> None:
    """The complaint names the flag and the value."""
    text = refusal(*arguments)
    assert arguments[0] in text
    assert says in text


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('pack_byte = "1GiB"', "unknown setting 'pack_byte'; did you mean pack_bytes? `cas serve --help` lists all."),
        ("trusted-forward = true", "unknown setting 'trusted-forward'; did you mean trust_forwarded?"),
        ("port = 5000", "unknown setting 'port'. `cas serve --help` lists all."),
        ("[engine]\npack_bytes = 1", "[engine]: the file is flat; write its settings without a heading"),
        ('workers = "many"', "workers: 'many' is not a valid integer"),
        ("workers = [1]", "workers: [1] is neither text nor a number"),
        ("workers = true", "workers: true is neither text nor a number"),
        ("workers = 2.5", "workers: 2.5 is not a whole number"),
        ("workers = 0", "workers: 0 is not in the range"),
        ("root = 1", "root: 1 is not text"),
        ("tls_cert = 1.5", "tls_cert: 1.5 is not text"),
        ("bind = 5000", "bind: 5000 is not text"),
        ("mode = 1", "mode: 1 is not text"),
        ('root = "a\\u0000b"', "root: 'a\\x00b' has a control character"),
        ("signup = 1", "signup: 1 is neither true nor false"),
        ("scrub_mends = 0.5", "scrub_mends: 0.5 is neither true nor false"),
        ('pack_bytes = "lots"', "pack_bytes: 'lots' is not a size"),
        ("workers = ", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_called_the_files(toml: str, says: str, tmp_path: Path) -> None:
    """The complaint names the file and the key, not a flag nobody gave."""
    text = refusal(toml=toml, tmp_path=tmp_path)
    assert str(tmp_path / "cas.toml") in text
    assert says in text


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (["CAS_SIGN_UP"], "CAS_SIGN_UP (did you mean CAS_SIGNUP?)"),
        (["CAS_CONFIG_FILE"], "CAS_CONFIG_FILE (did you mean CAS_CONFIG?)"),
        (["CAS_ROOTS", "CAS_PORT"], "CAS_PORT, CAS_ROOTS (did you mean CAS_ROOT?)"),
    ],
)
def test_a_variable_that_is_no_setting_is_named(variables: list[str], says: str) -> None:
    """On one line, and no error: other programs have CAS_ names too, as Kubernetes has for a service called cas."""
    result = invoke([], [], env=dict.fromkeys(variables, "false"), toml=None, tmp_path=None)
    assert result.exit_code == 0
    said = f"cas: these variables are no settings and count for nothing: {says}; `cas serve --help` lists all\n"
    assert (result.stdout, result.stderr) == ("", said)


def test_a_variable_that_is_empty_or_of_another_program_is_not_named() -> None:
    """Nothing was said by it."""
    env = {"CAS_SIGN_UP": "", "CASTLE": "x", "CASSANDRA_ROOT": "x"}
    assert invoke([], [], env=env, toml=None, tmp_path=None).stderr == ""


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 get a sentence and no traceback."""
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    assert "cannot read" in refusal("--config", str(tmp_path / "x.toml"))
