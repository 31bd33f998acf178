"""What the runs gave, as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.learning.benchmark import read_rows

from .films import TASKS
from .runs import chosen, finished

__all__ = ["probe_table", "run_table"]

SHOWN = ("youden", "sensitivity_95", "specificity_90")


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _interval(row: Mapping[str, str], name: str) -> str:
    """`.987 [.980, .993]`, or what of it there is."""
    values = [
        f"{float(row[key]):.3f}"
        for key in (name, f"{name}_low", f"{name}_high")
        if row.get(key, "nan") not in ("", "nan")
    ]
    return values[0] + (f" [{values[1]}, {values[2]}]" if len(values) == 3 else "") if values else "-"


def run_table(runs: Path) -> str:
    """A line a run, label and test: AUROC, accuracy at .5, and accuracy, sensitivity and specificity at points."""
    head = ["task", "start", "how", "labels", "seed", "label", "test", "films", "AUROC", "accuracy at .5"]
    head += [f"{name}: sensitivity, specificity, accuracy" for name in SHOWN] + ["calibration error", "processor s"]
    lines = [_line(head), "| --- " * len(head) + "|"]
    for run, cost, folder in finished(runs):
        for test in TASKS[run.task].tests:
            scores = chosen(folder).parent / f"{run.task}_{test}" / "evaluation"
            if not (scores / "summary.csv").exists():
                continue
            points = read_rows(scores / "operating_points.csv")
            for row in read_rows(scores / "summary.csv")[: len(TASKS[run.task].classes)]:
                own = {point["point"]: point for point in points if point["label"] == row["label"]}
                lines.append(
                    _line([
                        run.task, run.arm, run.how, f"{100 * run.fraction:g} %", run.seed, row["label"], test,
                        row["films"], _interval(row, "auroc"), _interval(row, "accuracy"),
                        *(_point(own[name]) if name in own else "-" for name in SHOWN),
                        _interval(row, "calibration_error"), cost["seconds"],
                    ])
                )  # fmt: skip
    return "\n".join(lines) + "\n"


def _point(row: Mapping[str, str]) -> str:
    """Sensitivity, specificity and the accuracy that follows from both."""
    right = int(row["sensitivity_count"]) + int(row["specificity_count"])
    films = int(row["sensitivity_films"]) + int(row["specificity_films"])
    return f"{float(row['sensitivity']):.3f}, {float(row['specificity']):.3f}, {right / films:.3f}"


def probe_table(table: Path) -> str:
    """A line a task, label and reading of frozen starts: mean test AUROC of the draws by share of the labels."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    shares = set()
    for row in read_rows(table):
        if row["part"] != "validation":
            found[row["task"], row["part"], row["label"], row["reading"], row["run"]].append(row)
            shares.add(float(row["fraction"]))
    order = sorted(shares)
    head = ["task", "test", "label", "reading", "start", *(f"{100 * one:g} %" for one in order), "within view"]
    lines = [_line(head), "| --- " * len(head) + "|"]
    for key, rows in found.items():
        cells = [_share([row for row in rows if float(row["fraction"]) == one]) for one in order]
        whole = next((row for row in rows if float(row["fraction"]) == 1), {})
        lines.append(_line([*key, *cells, _interval(whole, "within_view")]))
    return "\n".join(lines) + "\n"


def _share(rows: Sequence[Mapping[str, str]]) -> str:
    """Mean and spread over draws; of a single one its interval over patients."""
    if len(rows) < 2:
        return _interval(rows[0], "auroc") if rows else "-"
    values = [float(row["auroc"]) for row in rows]
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
