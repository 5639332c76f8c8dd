"""The suite of benchmarks answers, and its document shows what it answered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.config import HttpSettings
from bench import plots, report, results
from bench.__main__ import QUESTIONS
from bench.load import Address, Connection
from bench.targets import ROWS
from tests.wire.harness import count, serving

ROOT = Path(__file__).parents[2]
RUN = {
    "when": "2026-01-02T03:04:05+00:00",
    "commit": "0123456789ab",
    "scale": "full",
    "cores": 2,
    "processor": "a processor",
    "memory_gib": 8,
    "kernel": "6.1",
    "python": "3.11.7",
}


def row(key: str, **rates: float) -> dict[str, Any]:
    servers = {name.replace("_", "-"): {"rate": rate, "cpu_s": 1.0} for name, rate in rates.items()}
    return {"key": key, "clients": 1, "rounds": 3, "per": "GiB", "servers": servers}


def test_every_question_is_named_in_the_document() -> None:
    """And is a module that can be asked."""
    text = report.DOCUMENT.read_text(encoding="utf-8")
    for question in QUESTIONS:
        assert f"`{question}`" in text
        assert (ROOT / "bench" / f"bench_{question}.py").exists()


def test_the_document_takes_new_figures_and_keeps_its_notes() -> None:
    """What stands outside of the marks is people's."""
    text = report.DOCUMENT.read_text(encoding="utf-8")
    changed = report.with_figures(text, "other figures")
    assert changed != text
    assert report.with_figures(changed, "other figures") == changed
    for mark in (report.BEGIN, report.END):
        assert changed.count(mark) == 1
    assert changed.partition(report.BEGIN)[0] == text.partition(report.BEGIN)[0]
    assert changed.partition(report.END)[2] == text.partition(report.END)[2]


def test_a_client_goes_on_where_a_server_has_answered_enough_on_one_connection() -> None:
    """As clients do that live long: the answer says that it was the last one."""
    with serving(count, HttpSettings(keep_alive_requests=2)) as running:
        host, port = running.address
        with Connection(Address(port, host=host)) as connection:
            for _ in range(5):
                assert connection.ask("POST", "/", b"ab", keep=True).body == b"2 195"


def test_a_target_is_met_missed_or_not_measured() -> None:
    """Each is said, with the ratio."""
    found = {"pull/large-1": (row("pull/large-1", cas=100, nginx=100, docker_registry=100), RUN)}
    told = report.figures(found)
    assert "≥ 0.95 × nginx: 1 ✓" in told
    assert "≥ 1.2 × docker-registry: 1 **missed**" in told
    assert "commit 0123456789ab, set `full`, 2 cores of a processor" in told
    alone = report.figures({"pull/large-1": (row("pull/large-1", cas=100), RUN)})
    assert "≥ 0.95 × nginx: not measured" in alone


def test_without_a_run_the_document_says_how_to_make_one() -> None:
    """An empty table would look like a result."""
    assert report.figures({}) == report.NONE_YET


def test_plots_are_drawn_of_what_was_compared() -> None:
    """No peers, no bars."""
    assert plots.drawings({"mix/pull": row("mix/pull", cas=2)}) == {}
    drawn = plots.drawings({"mix/pull": row("mix/pull", cas=2, distribution=1)})
    assert list(drawn) == ["ratios.svg"]
    assert drawn["ratios.svg"].count("<rect") == 2


def test_figures_are_of_the_newest_run_that_was_no_trial(tmp_path: Path) -> None:
    """A later run of one question replaces its rows alone."""
    for number, (scale, keys) in enumerate(
        [("full", ["mix/pull", "pull/zstd"]), ("full", ["mix/pull"]), ("tiny", ["pull/zstd"])]
    ):
        rows = [row(key, cas=number) for key in keys]
        results.write(tmp_path / f"{number}.json", RUN | {"scale": scale}, rows)
    found = results.newest(tmp_path)
    assert {key: its["servers"]["cas"]["rate"] for key, (its, _) in found.items()} == {"mix/pull": 1, "pull/zstd": 0}


@pytest.mark.parametrize("question", ["manifests", "memory"])
def test_a_question_is_answered_in_json(question: str, tmp_path: Path) -> None:
    """Ours alone, at the smallest scale: rows that the table of targets knows, with the run that they are of."""
    ended = subprocess.run(
        [sys.executable, "-m", "bench", "--scale", "tiny", "--results", tmp_path / "results", question],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    content = json.loads(Path(ended.stdout.strip()).read_text(encoding="utf-8"))
    assert content["run"]["scale"] == "tiny"
    assert content["rows"]
    for its in content["rows"]:
        assert its["key"] in ROWS
        assert its["servers"]["cas"]["rate"] > 0
        assert len(its["corpus"]) == 64
