"""The benchmark suite: `python -m bench [--scale short|full|tiny] [--peers] [QUESTION …]`.

Each question is a module beside this one, `bench_QUESTION.py`, with a generator `ask`. Rows are written as soon as they
are there, to a JSON file in `bench/results/`; at the end the newest of every row go into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import report, results
from bench.corpus import corpus
from bench.field import PEERS, room_bytes
from bench.measure import GIB, SCALES, Row, Run, present
from bench.targets import ROWS
from tests.support.certificates import loopback_authority

QUESTIONS = ("manifests", "lists", "start", "pull", "push", "mix", "memory", "growth", "maintenance", "fsck")
_FACTOR = 20  # the disk that a run needs, in its large layers, beside growth


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "questions", nargs="*", choices=[*QUESTIONS, []], metavar="QUESTION", help=", ".join(QUESTIONS)
    )
    options.add_argument("--scale", choices=SCALES, default="short")
    options.add_argument("--peers", action="store_true", help="run the peers beside ours, in turns")
    options.add_argument(
        "--dir", type=Path, help="a folder on the disk to be measured; default: the system's for temporary files"
    )
    options.add_argument("--growth", type=int, metavar="GIB", help="how far a store is filled; default: the scale's")
    options.add_argument("--results", type=Path, default=results.FOLDER, help="where the JSON file goes")
    given = options.parse_args()
    scale, here = SCALES[given.scale], present(PEERS) if given.peers else ()
    if given.growth:
        scale = replace(scale, growth=given.growth * GIB)
    said = results.context(scale.name, here)
    path, rows, failed = results.new_file(given.results, said), list[Row](), 0
    for question in given.questions or QUESTIONS:
        began = time.monotonic()
        with TemporaryDirectory(dir=given.dir, prefix="cas-bench-") as name, corpus() as made:
            folder = Path(name)
            assert room_bytes(folder) > _FACTOR * scale.large, (
                f"too little room below {folder.parent}: name another --dir"
            )
            run = Run(scale, folder, made, loopback_authority(folder / "authority"), here)
            try:
                for row in importlib.import_module(f"bench.bench_{question}").ask(run):
                    rows.append(row | {"corpus": made.digest})
                    results.write(path, said, rows)
                    tell(row)
            except Exception:  # noqa: BLE001 - one question that fails does not take the others along
                traceback.print_exc()
                failed += 1
        print(f"# {question}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(path)
    if given.results == results.FOLDER and scale.name != "tiny":
        report.main()
    return 1 if failed else 0


def tell(row: Row) -> None:
    """Say what was just found, in one line."""
    its = "  ".join(f"{name} {figures['rate']:,.1f}" for name, figures in row["servers"].items())
    print(f"{ROWS[row['key']].words}: {its}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
