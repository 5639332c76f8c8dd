"""Plots as SVG, small enough to be read in a diff: our rate by each peer's, and the rates of a store that fills."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.measure import Row, ratios
from bench.targets import ROWS

COLOURS = {"docker-registry": "#b5542c", "distribution": "#2c6fb5", "zot": "#8a5fa8", "nginx": "#4a8f4a"}
_WIDTH, _LEFT, _LINE = 860, 330, 42
_SMALLEST, _LARGEST = 1 / 8, 16.0
_STYLE = 'font-family="sans-serif" font-size="12"'
_CURVES = {"push": "#b5542c", "pull": "#2c6fb5"}
_HEIGHT = 260

TITLES = {
    "ratios.svg": "Our rate by each peer's, in one run: right of the line 1 × we are faster",
    "growth.svg": "MiB/s of new layers as a store fills",
}


def drawings(rows: Mapping[str, Row]) -> dict[str, str]:
    """Give each plot that there are figures for, by the name of its file."""
    drawn = {}
    compared = {ROWS[key].words: _of_peers(row) for key, row in rows.items() if key in ROWS and _of_peers(row)}
    if compared:
        drawn["ratios.svg"] = _bars(compared)
    if series := rows.get("growth/store", {}).get("series"):
        drawn["growth.svg"] = _curves(series)
    return drawn


def _of_peers(row: Row) -> dict[str, float]:
    return {name: ratio for name, ratio in ratios(row, "rate").items() if name in COLOURS}


def _bars(compared: Mapping[str, Mapping[str, float]]) -> str:
    parts = [_text(_LEFT + 110 * at, 16, name, colour) for at, (name, colour) in enumerate(COLOURS.items())]
    for mark in (0.25, 0.5, 1, 2, 4, 8):
        x, shade = _place(mark), "#444" if mark == 1 else "#ddd"
        parts.append(f'<path d="M{x:.0f} 24V{_LINE * len(compared) + 34}" stroke="{shade}"/>')
        parts.append(_text(x - 8, _LINE * len(compared) + 48, f"{mark:g} ×"))
    for at, (words, its) in enumerate(compared.items()):
        top = 32 + at * _LINE
        parts.append(_text(4, top + 16, words))
        for nth, (name, ratio) in enumerate(its.items()):
            left, right = sorted((_place(1), _place(ratio)))
            y = top + nth * 9
            parts.append(
                f'<rect x="{left:.0f}" y="{y}" width="{max(1, right - left):.0f}" height="8" fill="{COLOURS[name]}"/>'
            )
    return _svg(_LINE * len(compared) + 56, parts)


def _curves(series: Sequence[Mapping[str, float]]) -> str:
    most = max(each[name] for each in series for name in _CURVES)
    last = series[-1]["stored_gib"]
    parts = [f'<path d="M50 20V{_HEIGHT - 30}H{_WIDTH - 10}" stroke="#444" fill="none"/>']
    parts += [_text(4, 28, f"{most:,.0f}"), _text(_WIDTH - 80, _HEIGHT - 12, f"{last:g} GiB")]
    for at, (name, colour) in enumerate(_CURVES.items()):
        points = " ".join(
            f"{50 + (_WIDTH - 70) * each['stored_gib'] / last:.0f},"
            f"{_HEIGHT - 30 - (_HEIGHT - 60) * each[name] / most:.0f}"
            for each in series
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(70 + 70 * at, 16, name, colour))
    return _svg(_HEIGHT, parts)


def _place(ratio: float) -> float:
    within = min(max(ratio, _SMALLEST), _LARGEST)
    share = math.log(within / _SMALLEST) / math.log(_LARGEST / _SMALLEST)
    return _LEFT + share * (_WIDTH - _LEFT - 20)


def _text(x: float, y: float, words: str, colour: str = "#222") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}">{words}</text>'


def _svg(height: int, parts: Sequence[str]) -> str:
    box = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    inside = "\n".join([f'<rect {box.partition(" viewBox")[0]} fill="#fff"/>', *parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} {_STYLE}>\n{inside}\n</svg>\n'
