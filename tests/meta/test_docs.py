"""What the documents say is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.meta.tables import with_tables
from tests.support.serving import run_cas
from tools.main import COMMANDS
from tools.version import VERSION

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_setting_and_exit_code_is_documented_as_it_is() -> None:
    """`make docs` writes the tables anew."""
    assert with_tables(OPERATIONS) == OPERATIONS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_a_section_with_all_its_own_flags(name: str) -> None:
    """Synopsis, promise, exit codes."""
    section = OPERATIONS.partition(f"\n## cas {name}\n")[2].partition("\n## ")[0]
    assert section
    assert f"    cas {name} " in section
    shown = set(re.findall(r"--[a-z-]+", run_cas(name, "--help").stdout.partition("Options:")[2]))
    own = shown if name != "serve" else {"--root", "--bind", "--workers", "--log-level", "--config"}
    assert own - {"--help"} <= set(re.findall(r"--[a-z-]+", section))


@pytest.mark.parametrize(
    "layer", ["cas", "api", "api/content", "api/access", "api/v1", "api/v2", "api/porting", "tools"]
)
def test_every_module_is_on_the_map(layer: str) -> None:
    """A newcomer finds each module in docs/architecture.md, in the part of its layer."""
    part = ARCHITECTURE.partition(f"\n## {layer}/: ")[2].partition("\n## ")[0]
    modules = {path.stem for path in (ROOT / layer).glob("*.py")} - {"__init__"}
    listed = set(re.findall(r"`([a-z0-9_]+)`(?= [·|]|,)", part))
    assert modules <= listed, f"add {sorted(modules - listed)} to docs/architecture.md"
    assert listed <= modules, f"{sorted(listed - modules)} are gone"


def test_the_version_has_its_entry_in_the_changelog() -> None:
    """Whoever raises the version says what changed."""
    assert f"\n## {VERSION}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "document", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
)
def test_every_link_leads_somewhere(document: str) -> None:
    """Links to files of this repository."""
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target
