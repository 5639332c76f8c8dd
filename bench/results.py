"""Results as files: what a run found, where, of which commit; and the newest answer to every question."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

from bench.measure import GIB, Row

FOLDER = Path(__file__).parent / "results"


def context(scale: str, peers: tuple[str, ...]) -> dict[str, Any]:
    """Say what was measured, and where."""
    return {
        "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
        "scale": scale,
        "peers": list(peers),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(psutil.virtual_memory().total / GIB),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def write(path: Path, said: dict[str, Any], rows: list[Row]) -> None:
    """Write a run as far as it came."""
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".new")
    unfinished.write_text(
        json.dumps({"run": said, "rows": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    unfinished.rename(path)


def new_file(folder: Path, said: dict[str, Any]) -> Path:
    """Name the file of a run."""
    return folder / f"{said['when'].replace(':', '').replace('+0000', 'Z')}-{said['scale']}.json"


def newest(folder: Path = FOLDER) -> dict[str, tuple[Row, dict[str, Any]]]:
    """Give each row as it was last measured, with its run. Tiny runs are for trying the suite out and do not count."""
    found: dict[str, tuple[Row, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["run"]["scale"] != "tiny":
            found |= {row["key"]: (row, content["run"]) for row in content["rows"]}
    return found


def _git(*arguments: str) -> str:
    ended = subprocess.run(["git", *arguments], cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    return ended.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
