"""Engines of 2013 and 2014 built from their sources, whole: the daemon and its client in one program, `docker-VERSION`.

The sources come as modules at the versions and checksums of tests/clients/go/engines. A few of their lines are changed
on the way, because a Go of today builds them and a test runs them; none of these lines speaks to a registry.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

MODULES = Path(__file__).parents[1] / "clients" / "go" / "engines"
VERSIONS = ("0.5.3", "0.6.7", "0.9.1", "1.0.1")
PROGRAMS = tuple(f"docker-{version}" for version in VERSIONS)
_SOURCES = "github.com/dotcloud/docker"
_STUBS = MODULES / "stubs"
_LEFT_OUT = ("vendor", "integration", "integration-cli", "docs", "contrib", "hack", "*_test.go")
_CHANGES = (
    # The copy of archive/tar that engines brought along is no part of the module, and today's has other manners.
    (r'"(github\.com/dotcloud/docker/vendor/[a-z./]*/)?archive/tar"', '"github.com/dotcloud/tar"'),
    # The public index is gone: which one an engine takes for it comes from the environment.
    (r'(?m)^const INDEXSERVER = ".*"$', 'var INDEXSERVER = os.Getenv("DOCKER_INDEX_URL")'),
    # Storage that needs libraries of C, and the name that a database which needs none is built under.
    (r'(?m)^.*graphdriver/(btrfs|devmapper)"$', ""),
    (r"(?m)^// \+build (!?)cgo$", r"// +build \1linux"),
    # A second program that starts containers is looked for unless the first one is static.
    (r"(?m)^\tIAMSTATIC +bool\b", "\tIAMSTATIC = true"),
)


Run = Callable[..., bool]
Tell = Callable[[str], None]


def build(into: Path, run: Run, tell: Tell) -> None:
    """Build what is not there yet; `run` runs a command in a folder, and says whether it succeeded."""
    into.mkdir(exist_ok=True)
    for version in VERSIONS:
        program = into / f"docker-{version}"
        if not _is_newer(program, version):
            tell(f"building {program.name}")
            with TemporaryDirectory(dir=into) as scratch:
                _build(version, program, Path(scratch), run, tell)


def _is_newer(program: Path, version: str) -> bool:
    sources = [Path(__file__), *_files(MODULES / version), *_files(_STUBS)]
    return program.exists() and program.stat().st_mtime_ns >= max(source.stat().st_mtime_ns for source in sources)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _build(version: str, program: Path, scratch: Path, run: Run, tell: Tell) -> None:
    shutil.copytree(_STUBS, scratch / "stubs")
    module = shutil.copytree(MODULES / version, scratch / version)
    sources = _downloaded(module, tell)
    if sources is None:
        return
    _lay_out(sources, module / "tree")
    named = " ".join(f"-X {package}.VERSION={version}" for package in ("main", f"{_SOURCES}/dockerversion"))
    command = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", f"-s -w {named}", "-o", str(program)]
    if run("go", "mod", "edit", f"-replace={_SOURCES}=./tree", cwd=module) and run(
        "env", "CGO_ENABLED=0", *command, f"{_SOURCES}/docker", cwd=module
    ):
        program.touch()


def _downloaded(module: Path, tell: Tell) -> Path | None:
    """Give the folder of an engine's sources, which go has held against their checksum."""
    command = ["go", "mod", "download", "-json", _SOURCES]
    ended = subprocess.run(command, cwd=module, capture_output=True, text=True, check=False)
    if ended.returncode:
        tell(f"{' '.join(command)} failed:\n{(ended.stdout + ended.stderr)[-2000:]}")
        return None
    return Path(json.loads(ended.stdout)["Dir"])


def _lay_out(sources: Path, tree: Path) -> None:
    """Copy an engine's sources, changed; there they are read-only, and go takes no changes to them."""
    shutil.copytree(sources, tree, ignore=shutil.ignore_patterns(*_LEFT_OUT), copy_function=shutil.copyfile)
    for folder, _, names in os.walk(tree):
        Path(folder).chmod(0o755)
        for name in names:
            if name.endswith(".go"):
                _change(Path(folder) / name)
    (tree / "go.mod").write_text(f"module {_SOURCES}\n", encoding="utf-8")


def _change(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    changed = text
    for pattern, replacement in _CHANGES:
        changed = re.sub(pattern, replacement, changed)
    if changed != text:
        source.write_text(changed, encoding="utf-8")
