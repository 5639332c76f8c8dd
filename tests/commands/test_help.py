"""The command explains itself."""

from __future__ import annotations

import re

import click
import pytest

from tests.support.serving import run_cas
from tools.main import COMMANDS, load
from tools.tunables import ROWS, flag
from tools.version import VERSION


def test_version_is_one_line() -> None:
    """For scripts and bug reports."""
    ended = run_cas("--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"cas {VERSION}\n", "")


def test_help_lists_every_command_with_what_it_is_for() -> None:
    """One line a command."""
    told = run_cas("--help").stdout
    for name in COMMANDS:
        assert f"  {name} " in told
        assert load(name).get_short_help_str(80) in told


@pytest.mark.parametrize("name", sorted(name for name in COMMANDS if isinstance(load(name), click.Group)))
def test_what_a_command_of_several_is_for_stands_there_whole(name: str) -> None:
    """Not cut off in the middle, on the narrowest terminal."""
    told = run_cas(name, "--help").stdout
    assert "..." not in told.partition("\nCommands:\n")[2]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_each_command_shows_examples_that_parse(name: str) -> None:
    """What is shown can be typed."""
    ended = run_cas(name, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"  cas {name}" in ended.stdout.partition("Examples:")[2]
    assert "--root DIR" in ended.stdout
    assert "--config FILE" in ended.stdout


@pytest.mark.parametrize("arguments", [[], *([name] for name in sorted(COMMANDS))])
def test_examples_stand_on_lines_of_their_own(arguments: list[str]) -> None:
    """Wrapped into a paragraph, they could not be copied."""
    examples = run_cas(*arguments, "--help").stdout.partition("\n  Examples:\n")[2].partition("\n\n")[0]
    assert examples
    assert all(re.match(r"    (?:CAS_\w+=\S+ )?cas [a-z]+", line) for line in examples.splitlines())


@pytest.mark.parametrize("arguments", [(), ("serve",)])
def test_what_is_shown_for_other_machines_is_safe_to_type(arguments: tuple[str, ...]) -> None:
    """No passwords in the clear, and no accounts for whoever comes."""
    examples = run_cas(*arguments, "--help").stdout.partition("\n  Examples:\n")[2].splitlines()
    (shown,) = [line for line in examples if "--bind 0.0.0.0" in line]
    assert "--mode auth --signup false --tls-cert cert.pem --tls-key key.pem" in shown


def test_help_of_serve_lists_every_setting_with_its_default() -> None:
    """Nothing can be set that is not shown."""
    told = " ".join(run_cas("serve", "--help").stdout.split())
    for name, row in ROWS.items():
        assert f"{flag(name)} " in told
        assert row.reason.replace("`", "").split()[0] in told
    assert told.count("[default: ") == len(ROWS)


@pytest.mark.parametrize("arguments", [["server"], ["serve", "--prot", "1"], ["stats", "extra"]])
def test_a_mistyped_command_line_exits_2(arguments: list[str]) -> None:
    """And says what was not understood."""
    ended = run_cas(*arguments)
    assert ended.returncode == 2
    assert "Usage: cas" in ended.stderr
    assert arguments[-1] in ended.stderr or arguments[1] in ended.stderr


def test_without_a_command_the_help_is_shown() -> None:
    """No guess at what was meant."""
    ended = run_cas()
    assert ended.returncode == 2
    assert "Commands:" in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["serv"], "'serve'"),
        (["list"], None),
        (["serve", "--port", "5001"], "'--bind HOST:PORT'"),
        (["stats", "--data=/srv/cas"], "'--root DIR'"),
        (["serve", "--tls-ca", "x"], "'--tls-cert'"),
    ],
)
def test_what_was_meant_is_named(arguments: list[str], meant: str | None) -> None:
    """By what other servers call it, or else by its letters; nothing is guessed where nothing is near."""
    error = run_cas(*arguments).stderr.splitlines()[-1]
    if meant is None:
        assert "Did you mean" not in error
    else:
        assert f"Did you mean {meant}?" in error or f"Did you mean one of: {meant}" in error
