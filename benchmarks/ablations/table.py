"""The ablations as one table: mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["COLUMNS", "markdown"]

COLUMNS = {
    "mean": "mean token",
    "grid": "5 x 5 tokens",
    "attentive": "attentive",
    "domain": "domain",
    "domain_withheld": "withheld",
    "layout": "layout",
    "layout_withheld": "none",
    "local": "local",
    "position": "position",
    "places": "places",
    "rank_tokens": "rank",
}
"""Columns of the CSV, and their heads."""


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """One line a run: seeds, processor seconds, and of each column mean and standard deviation over seeds."""
    names = list(dict.fromkeys(row["run"] for row in rows))
    lines = ["| run | seeds | seconds | " + " | ".join(COLUMNS.values()) + " |", "| --- " * (3 + len(COLUMNS)) + "|"]
    for name in names:
        mine = [row for row in rows if row["run"] == name]
        seconds = np.mean([float(row["processor_seconds"]) for row in mine])
        cells = [_cell([row.get(column, "") for row in mine], column) for column in COLUMNS]
        lines.append(f"| {name} | {len(mine)} | {seconds:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(cells: Sequence[str], column: str) -> str:
    """Mean and sample standard deviation; a dash for what a run does not have."""
    values = [float(cell) for cell in cells if cell]
    if not values:
        return "-"
    form = ".1f" if column == "rank_tokens" else ".3f"
    spread = f" ± {np.std(values, ddof=1):{form}}" if len(values) > 1 else ""
    return f"{np.mean(values):{form}}{spread}"
