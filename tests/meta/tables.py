"""The generated tables of docs/operations.md; `make docs` writes them there."""

from __future__ import annotations

import re
from pathlib import Path

from tools.exits import CODES
from tools.settings import shown_default
from tools.tunables import GROUPS, Section, unit

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
UNITS = {
    "bytes": "bytes",
    "seconds": "seconds",
    "share": "0 to 1",
    "count": "",
    "choice": "true, false",
    "text": "",
    "url": "URL",
    "platform": "platform",
}


def settings_table(section: Section) -> str:
    """Every setting of a section: name, default, unit, reason, what lies past it."""
    lines = ["| setting | default | unit | what for | past it |", "| --- | --- | --- | --- | --- |"]
    for name, row in GROUPS[section].rows.items():
        kind = (", ".join(row.choices) or UNITS[unit(name)]) if section is not Section.COMMAND else ""
        cells = (f"`{name}`", shown_default(name), kind, row.reason, row.past)
        lines.append(("| " + " | ".join(cells) + " |").replace("|  |", "| |"))
    return "\n".join(lines).replace("|  |", "| |")


def exits_table() -> str:
    """Every exit code that an error has, with its errors."""
    lines = ["| code | error |", "| --- | --- |"]
    for code in sorted(set(CODES.values())):
        names = [f"`{kind.__name__}`" for kind, its in CODES.items() if its == code]
        lines.append(f"| {code} | {', '.join(names)} |")
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """Give the document with every table as it should be: the first one after its heading."""
    for heading, table in {f"### {section}": settings_table(section) for section in Section}.items():
        text = _replaced(text, heading, table)
    return _replaced(text, "Otherwise by error.", exits_table())


def _replaced(text: str, heading: str, table: str) -> str:
    before, found, after = text.partition(f"\n{heading}")
    assert found, f"no {heading!r} in the document"
    return before + found + re.sub(r"(?:^\|.*\n)+", lambda _: table + "\n", after, count=1, flags=re.MULTILINE)


if __name__ == "__main__":
    OPERATIONS.write_text(with_tables(OPERATIONS.read_text(encoding="utf-8")), encoding="utf-8")
