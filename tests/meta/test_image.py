"""What the Containerfile takes, sets and runs is what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from click.testing import CliRunner

from tools.main import main

ROOT = Path(__file__).parents[2]
FILE = (ROOT / "Containerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COPIED = {name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", FILE, re.MULTILINE) for name in line.split()}


def test_the_image_takes_every_package_and_every_file_that_its_installation_reads() -> None:
    """A package that is new is not missing in the image alone."""
    packages = {name for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"] if "." not in name}
    files = {"pyproject.toml", "requirements.lock", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert packages | files == COPIED
    assert all((ROOT / name).exists() for name in COPIED)


def test_what_is_sent_to_a_builder_is_what_the_image_takes() -> None:
    """A store in `data`, with its keys, goes nowhere; and nothing that is copied is missing."""
    said = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in said
    assert {line[1:].rstrip("/") for line in said if line.startswith("!")} == COPIED


def test_the_image_sets_what_the_server_reads() -> None:
    """A variable that nobody reads would leave the store outside of the volume."""
    shown = CliRunner().invoke(main, ["serve", "--help"], terminal_width=200).output
    flags = {name.lower().replace("_", "-") for name in re.findall(r"\bCAS_(\w+)=", FILE)}
    assert flags == {"root", "bind"}
    assert all(f"--{flag} " in shown for flag in flags)
    assert re.search(r"\bCAS_ROOT=(\S+)", FILE)[1] == re.search(r"^VOLUME (\S+)", FILE, re.MULTILINE)[1]  # type: ignore[index]


def test_the_image_has_a_python_that_is_supported() -> None:
    """The version of its base is one of those that the project says."""
    version = re.search(r"^ARG BASE=\S+/python:(\S+)-slim$", FILE, re.MULTILINE)
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["project"]["classifiers"]
