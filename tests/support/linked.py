"""Engines of 2014 to 2017 built from their sources, as far as they move images: `engine-VERSION`.

Each is a program of ours around the engine's own storage, archives and registry client, all of which come as modules at
the versions and checksums of tests/clients/go/engines. What of the sources no longer compiles is changed on the way;
what is said to registries is not.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

MODULES = Path(__file__).parents[1] / "clients" / "go" / "engines"
VERSIONS = ("1.3.3", "1.5.0", "1.6.2", "1.9.1", "1.12.6")
PROGRAMS = tuple(f"engine-{version}" for version in VERSIONS)
_SHARED = ("dockerversion", "jobs", "oldtar")
_SOURCES = "github.com/docker/docker"
_LEFT_OUT = ("vendor", "integration-cli", "docs", "contrib", "hack", "*_test.go")
_TAGS = "autogen daemon noresumabledigest"
# A build says which version it is in one of these, by age.
_NAMED = (f"{_SOURCES}/dockerversion.Version", f"{_SOURCES}/autogen/dockerversion.VERSION")
# What stands instead of what, in the files below a folder, or in one file.
# Engines brought their copy of archive/tar along; it is no part of the module.
_BROUGHT = "pkg", f'"{_SOURCES}/vendor/src/code.google.com/p/go/src/pkg/archive/tar"', '"oldtar"'
# Where an engine does not say who it is, the Go that it was built with said so, in other words than today's.
_POOL = "\tvar (\n\t\tpool  *x509.CertPool"
_SAID = """\tif req.Header.Get("User-Agent") == "" {
\t\treq.Header.Set("User-Agent", "Go 1.1 package http")
\t}
"""
_CHANGES: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "1.3.3": (_BROUGHT,),
    "1.5.0": (_BROUGHT, ("registry/registry.go", _POOL, _SAID + _POOL)),
    "1.6.2": (_BROUGHT,),
    "1.9.1": (
        ("pkg/tarsum/tarsum.go", '"archive/tar"', '"oldtar"'),
        ("registry/registry.go", "v2.ErrorCodeUnauthorized", "errcode.ErrorCodeUnauthorized"),
    ),
    "1.12.6": (("registry/service.go", "auth.RegistryScope{", "registryScope{"),),
}


def build(into: Path, run: Callable[..., bool], tell: Callable[[str], None]) -> None:
    """Build what is not there yet; `run` runs a command in a folder, and says whether it succeeded."""
    into.mkdir(exist_ok=True)
    for version in VERSIONS:
        program = into / f"engine-{version}"
        if not _is_newer(program, version):
            tell(f"building {program.name}")
            _build(version, program, into / "linked", run)


def _is_newer(program: Path, version: str) -> bool:
    folders = [MODULES / name for name in (version, *_SHARED)]
    sources = [Path(__file__), *(path for folder in folders for path in folder.rglob("*") if path.is_file())]
    return program.exists() and program.stat().st_mtime_ns >= max(source.stat().st_mtime_ns for source in sources)


def _build(version: str, program: Path, scratch: Path, run: Callable[..., bool]) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    for name in (version, *_SHARED):
        shutil.copytree(MODULES / name, scratch / name)
    module = scratch / version
    if run("go", "mod", "download", _SOURCES, cwd=module):
        lay_out(version, module)
        named = " ".join(f"-X {name}={version}" for name in _NAMED)
        flags = ("-mod=readonly", "-trimpath", "-tags", _TAGS, "-ldflags", f"-s -w {named}", "-o", str(program))
        if run("env", "CGO_ENABLED=0", "go", "build", *flags, ".", cwd=module):
            program.touch()  # go leaves a program alone that is up to date
    shutil.rmtree(scratch)


def lay_out(version: str, module: Path) -> None:
    """Lay an engine's sources out beside its program, changed, and let that take those."""
    found = json.loads(_go(module, "list", "-m", "-json", _SOURCES))["Dir"]
    tree = module / "tree"
    shutil.copytree(found, tree, ignore=shutil.ignore_patterns(*_LEFT_OUT), copy_function=shutil.copy)
    for path in [tree, *tree.rglob("*")]:  # the cache of modules is read-only
        path.chmod(0o755 if path.is_dir() else 0o644)
    for where, old, new in _CHANGES[version]:
        for source in _sources(tree / where):
            source.write_text(source.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    if (module / "files").exists():
        shutil.copytree(module / "files", tree, dirs_exist_ok=True)
        shutil.rmtree(module / "files")
    (tree / "go.mod").write_text(f"module {_SOURCES}\n\ngo 1.16\n", encoding="utf-8")
    _go(module, "mod", "edit", f"-replace={_SOURCES}=./tree")


def _sources(place: Path) -> Iterator[Path]:
    return place.rglob("*.go") if place.is_dir() else iter([place])


def _go(module: Path, *arguments: str) -> str:
    return subprocess.run(["go", *arguments], cwd=module, check=True, capture_output=True, text=True).stdout
