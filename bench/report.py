"""The figures of docs/benchmarks.md: the newest results as tables and plots, put there by `python -m bench.report`.

Only what lies between two marks is written; the notes around them are for people to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import plots, results
from bench.field import PEERS
from bench.load import MIB
from bench.measure import Row
from bench.targets import ROWS, Target

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PLOTS = DOCUMENT.with_name("benchmarks")
BEGIN, END = "<!-- figures: made by `make bench-report` -->", "<!-- end of figures -->"
NONE_YET = "No run was kept yet: `make bench-compare` measures, and writes its figures here."
VERSIONS = {"docker-registry": "2.8.2", "distribution": "v3", "zot": "1.4.3"}
SERVERS = ("cas", *PEERS)
Found = Mapping[str, tuple[Row, dict[str, Any]]]


def main() -> None:
    found = results.newest()
    for name, drawing in plots.drawings({key: row for key, (row, _) in found.items()}).items():
        PLOTS.mkdir(exist_ok=True)
        (PLOTS / name).write_text(drawing, encoding="utf-8")
    DOCUMENT.write_text(with_figures(DOCUMENT.read_text(encoding="utf-8"), figures(found)), encoding="utf-8")


def with_figures(text: str, made: str) -> str:
    """Give the document with other figures."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"the document needs the lines {BEGIN!r} and {END!r}"
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def figures(found: Found) -> str:
    """All that is generated."""
    rows = {key: found[key][0] for key in ROWS if key in found}
    if not rows:
        return NONE_YET
    pictures = [f"![{plots.TITLES[name]}]({PLOTS.name}/{name})" for name in plots.drawings(rows)]
    parts = ["\n".join(runs(found)), "### Rates and targets", rates(rows), *pictures, "### What it took", costs(rows)]
    return "\n\n".join(parts)


def runs(found: Found) -> list[str]:
    """Say which runs the figures are of, and of which machine."""
    told = {run["when"]: run for _, run in found.values()}
    return [
        f"- {when}: commit {run['commit']}, set `{run['scale']}`, {run['cores']} cores of {run['processor']}, "
        f"{run['memory_gib']} GiB, Linux {run['kernel']}, Python {run['python']}"
        for when, run in sorted(told.items())
    ]


def rates(rows: Mapping[str, Row]) -> str:
    """Medians of the rounds, and how they stand to the targets."""
    columns = [" ".join(filter(None, (name, VERSIONS.get(name)))) for name in SERVERS]
    lines = [
        f"| work | unit | {' | '.join(columns)} | beside | targets |",
        "|---" * (len(columns) + 4) + "|",
    ]
    for key, row in rows.items():
        servers = row["servers"]
        cells = [_number(servers.get(name, {}).get("rate")) for name in SERVERS]
        beside = ", ".join(f"{name}: {_number(its['rate'])}" for name, its in servers.items() if name not in SERVERS)
        targets = "; ".join(_verdict(target, row) for target in ROWS[key].targets)
        lines.append("| " + " | ".join([ROWS[key].words, unit(row), *cells, beside, targets]) + " |")
    return "\n".join(lines)


def costs(rows: Mapping[str, Row]) -> str:
    """CPU of all the server's processes, latency, memory and disk, a line for each row and server."""
    lines = [
        "| work | server | CPU-s per GiB or 1,000 | p50 ms | p99 ms | peak RSS MiB | on disk MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, row in rows.items():
        for name, its in row["servers"].items():
            if "p50_ms" in its or "peak_rss_mib" in its:
                disk = its["disk_bytes"] / MIB if "disk_bytes" in its else None
                taken = [its.get("cpu_s"), its.get("p50_ms"), its.get("p99_ms"), its.get("peak_rss_mib"), disk]
                lines.append("| " + " | ".join([ROWS[key].words, name, *map(_number, taken)]) + " |")
        if "notes" in row:
            noted = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in row["notes"].items())
            lines.append(f"| {ROWS[key].words} | *noted* | {noted} | | | | |")
    return "\n".join(lines)


def unit(row: Row) -> str:
    """What its rate counts."""
    return {"GiB": "MiB/s", "1,000": "requests/s", "1": "starts/s"}[row["per"]]


def _verdict(target: Target, row: Row) -> str:
    value, met = target.figure(row), target.met(row)
    return f"{target.words}: " + ("not measured" if value is None else f"{value:,.3g} {'✓' if met else '**missed**'}")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
