"""Engines of 2013 to 2017 built from their sources.

Those of 2013 and 2014 whole, daemon and client in one program: `docker-VERSION`. Later ones as far as they move images,
in a small program of ours around their own storage, archives and registry client: `engine-VERSION`. The sources come as
modules at the versions and checksums of tests/clients/go/engines. A few of their lines are changed on the way, because
a Go of today builds them and a test runs them; what is said to registries is not.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

MODULES = Path(__file__).parents[1] / "clients" / "go" / "engines"
WHOLE = ("0.5.3", "0.6.7", "0.9.1", "1.0.1")
LINKED = ("1.3.3", "1.5.0", "1.6.2", "1.9.1", "1.12.6")
_LEFT_OUT = ("vendor", "integration", "integration-cli", "docs", "contrib", "hack", "*_test.go")

Run = Callable[..., bool]
Tell = Callable[[str], None]
Change = tuple[str, str, str]  # in which file, or below which folder, what (an expression) becomes what


@dataclass(frozen=True, slots=True)
class _Engine:
    """How one is built.

    Attributes:
        program: what it is called.
        folder: its module, below MODULES.
        shared: folders beside that which it is built with.
        sources: what its own packages are called below.
        package: the program's.
        named: variables that say which version it is, by age.
        tags: of the build.
        changes: to its sources.
    """

    program: str
    folder: str
    shared: tuple[str, ...]
    sources: str
    package: str
    named: tuple[str, ...]
    tags: str
    changes: tuple[Change, ...]


def _plain(where: str, old: str, new: str) -> Change:
    return where, re.escape(old), new.replace("\\", r"\\")


_DOTCLOUD, _DOCKER = "github.com/dotcloud/docker", "github.com/docker/docker"
_OF_WHOLE: tuple[Change, ...] = (
    # The copies of archive/tar that engines brought along are no part of the module, and today's has other manners.
    (".", r'"((github\.com/dotcloud/docker/vendor/[a-z./]*/)?archive|github\.com/dotcloud)/tar"', '"oldtar"'),
    # The public index is gone: which one an engine takes for it comes from the environment.
    (".", r'(?m)^const INDEXSERVER = ".*"$', 'var INDEXSERVER = os.Getenv("DOCKER_INDEX_URL")'),
    # Storage that needs libraries of C, and the name that a database which needs none is built under.
    (".", r'(?m)^.*graphdriver/(btrfs|devmapper)"$', ""),
    (".", r"(?m)^// \+build (!?)cgo$", r"// +build \1linux"),
    # A second program that starts containers is looked for unless the first one is static.
    (".", r"(?m)^\tIAMSTATIC +bool\b", "\tIAMSTATIC = true"),
)
_BROUGHT = _plain("pkg", f'"{_DOCKER}/vendor/src/code.google.com/p/go/src/pkg/archive/tar"', '"oldtar"')
# Where an engine does not say who it is, the Go that it was built with said so, in other words than today's.
_POOL = "\tvar (\n\t\tpool  *x509.CertPool"
_SAID = """\tif req.Header.Get("User-Agent") == "" {
\t\treq.Header.Set("User-Agent", "Go 1.1 package http")
\t}
"""
_OF_LINKED: Mapping[str, tuple[Change, ...]] = {
    "1.3.3": (_BROUGHT,),
    "1.5.0": (_BROUGHT, _plain("registry/registry.go", _POOL, _SAID + _POOL)),
    "1.6.2": (_BROUGHT,),
    "1.9.1": (
        _plain("pkg/tarsum/tarsum.go", '"archive/tar"', '"oldtar"'),
        _plain("registry/registry.go", "v2.ErrorCodeUnauthorized", "errcode.ErrorCodeUnauthorized"),
    ),
    "1.12.6": (_plain("registry/service.go", "auth.RegistryScope{", "registryScope{"),),
}


def _whole(version: str) -> _Engine:
    named = ("main.VERSION", f"{_DOTCLOUD}/dockerversion.VERSION")
    return _Engine(
        f"docker-{version}", version, ("stubs", "oldtar"), _DOTCLOUD, f"{_DOTCLOUD}/docker", named, "", _OF_WHOLE
    )


def _linked(version: str) -> _Engine:
    named = (f"{_DOCKER}/dockerversion.Version", f"{_DOCKER}/autogen/dockerversion.VERSION")
    shared, tags = ("dockerversion", "jobs", "oldtar"), "autogen daemon noresumabledigest"
    return _Engine(f"engine-{version}", version, shared, _DOCKER, ".", named, tags, _OF_LINKED[version])


_ENGINES = (*map(_whole, WHOLE), *map(_linked, LINKED))
PROGRAMS = tuple(engine.program for engine in _ENGINES)


def build(into: Path, run: Run, tell: Tell) -> None:
    """Build what is not there yet; `run` runs a command in a folder, and says whether it succeeded."""
    into.mkdir(exist_ok=True)
    for engine in _ENGINES:
        if not _is_newer(into / engine.program, engine):
            tell(f"building {engine.program}")
            with TemporaryDirectory(dir=into) as scratch:
                _build(engine, into / engine.program, Path(scratch), run, tell)


def _is_newer(program: Path, engine: _Engine) -> bool:
    sources = [Path(__file__), *(path for name in (engine.folder, *engine.shared) for path in _files(MODULES / name))]
    return program.exists() and program.stat().st_mtime_ns >= max(source.stat().st_mtime_ns for source in sources)


def _build(engine: _Engine, program: Path, scratch: Path, run: Run, tell: Tell) -> None:
    for name in (engine.folder, *engine.shared):
        shutil.copytree(MODULES / name, scratch / name)
    module = scratch / engine.folder
    sources = _downloaded(engine, module, tell)
    if sources is None:
        return
    _lay_out(engine, sources, module)
    named = " ".join(f"-X {name}={engine.folder}" for name in engine.named)
    flags = ["-mod=readonly", "-trimpath", "-tags", engine.tags, "-ldflags", f"-s -w {named}", "-o", str(program)]
    if run("go", "mod", "edit", f"-replace={engine.sources}=./tree", cwd=module) and run(
        "env", "CGO_ENABLED=0", "go", "build", *flags, engine.package, cwd=module
    ):
        program.touch()  # go leaves a program alone that is up to date


def _downloaded(engine: _Engine, module: Path, tell: Tell) -> Path | None:
    """Give the folder of an engine's sources, which go has held against their checksum."""
    command = ["go", "mod", "download", "-json", engine.sources]
    ended = subprocess.run(command, cwd=module, capture_output=True, text=True, check=False)
    if ended.returncode:
        tell(f"{' '.join(command)} failed:\n{(ended.stdout + ended.stderr)[-2000:]}")
        return None
    return Path(json.loads(ended.stdout)["Dir"])


def _lay_out(engine: _Engine, sources: Path, module: Path) -> None:
    """Copy an engine's sources beside its module, changed; where they are they are read-only."""
    tree = module / "tree"
    shutil.copytree(sources, tree, ignore=shutil.ignore_patterns(*_LEFT_OUT), copy_function=shutil.copyfile)
    for folder, _, _ in os.walk(tree):
        Path(folder).chmod(0o755)
    for where, old, new in engine.changes:
        for source in _sources(tree / where):
            text = source.read_text(encoding="utf-8")
            if (changed := re.sub(old, new, text)) != text:
                source.write_text(changed, encoding="utf-8")
    if (module / "files").exists():
        shutil.copytree(module / "files", tree, dirs_exist_ok=True)
        shutil.rmtree(module / "files")
    (tree / "go.mod").write_text(f"module {engine.sources}\n", encoding="utf-8")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _sources(place: Path) -> Iterator[Path]:
    return (path for path in place.rglob("*.go") if path.is_file()) if place.is_dir() else iter([place])
