"""This repository keeps its own house rules."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("requirements.lock", "requirements-dev.lock")}
MOST_LINES = 400
MOST_FUNCTION_LINES = 50
SOURCES = [path for layer in ("cas", "api", "tools") for path in sorted((ROOT / layer).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def requirement_names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9_.-]+", requirement) for requirement in requirements)
    return {match[0].lower() for match in found if match}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_is_pinned_and_hashed(lock: str) -> None:
    """What was tested is what gets installed, byte for byte."""
    entries = re.split(r"\n(?=[a-z])", re.sub(r"^\s*#.*\n", "", LOCKS[lock], flags=re.MULTILINE).strip())
    assert len(entries) > 10
    for entry in entries:
        assert re.match(r"[a-z0-9_.-]+==\S+ \\\n( *--hash=sha256:[0-9a-f]{64}( \\)?\n?)+$", entry), entry


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_place_to_download_from(lock: str) -> None:
    """Where packages come from is the machine's business."""
    assert "://" not in LOCKS[lock]
    assert "--index" not in LOCKS[lock]
    assert "--find-links" not in LOCKS[lock]


def test_the_locks_hold_what_the_project_asks_for_and_agree() -> None:
    """A dependency added without `make lock` is noticed here."""
    pins = {name: dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)", text, re.MULTILINE)) for name, text in LOCKS.items()}
    runtime, dev = pins["requirements.lock"], pins["requirements-dev.lock"]
    project = PROJECT["project"]
    assert requirement_names(project["dependencies"]) <= set(runtime)
    assert requirement_names(project["optional-dependencies"]["dev"]) <= set(dev)
    assert runtime.items() <= dev.items()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    """At most 400 lines a module and 50 a function."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    long = [
        each.name
        for each in functions(path)
        if each.end_lineno is not None and each.end_lineno - each.lineno >= MOST_FUNCTION_LINES
    ]
    assert not long


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_every_test_says_what_it_promises(path: Path) -> None:
    """A docstring each; none is skipped, expected to fail, or waits by sleeping."""
    for each in functions(path):
        if each.name.startswith("test_"):
            assert ast.get_docstring(each), f"{each.name} has no docstring"
    text = path.read_text(encoding="utf-8")
    banned = [r"\bmark\." + word for word in ("skip", "xfail")] + [r"\bpytest\." + "skip", r"\btime\." + "sleep"]
    assert not [pattern for pattern in banned if re.search(pattern, text)]


def test_ci_runs_what_the_readme_names() -> None:
    """One way to check and one way to test, for people and machines."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("make check", "make test"):
        assert f"\n{command}\n" in script
        assert f"    {command} " in readme
