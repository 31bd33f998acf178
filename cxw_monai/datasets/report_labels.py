"""Labels that a program read out of reports (CheXpert, NegBio): 1, 0, -1 for "uncertain", blank for "not mentioned"."""

from __future__ import annotations

from collections.abc import Mapping

from .registry import Option

__all__ = ["OBSERVATIONS", "POLICY_OPTIONS", "report_labels"]

OBSERVATIONS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
_UNCERTAIN_IS_ONE = ("Atelectasis", "Edema")  # of the mixed policy, CheXWorld's and, of these two, CheXpert's own best

POLICY_OPTIONS = (
    Option(
        "uncertain",
        "mixed",
        "what an uncertain label becomes; mixed: 1 for Atelectasis and Edema, 0 for the others",
        ("mixed", "ones", "zeros", "unknown"),
    ),
    Option("unmentioned", "zero", "what a finding that a report doesn't mention becomes", ("zero", "unknown")),
)


def report_labels(row: Mapping[str, str], where: str, uncertain: str, unmentioned: str) -> dict[str, float]:
    """The 0/1 labels of a row.

    Args:
        row: of a CSV; observations that it has no column of are left out.
        where: names the row in errors.
        uncertain: ``mixed``, ``ones``, ``zeros`` or ``unknown``.
        unmentioned: ``zero`` or ``unknown``.

    Returns:
        0 or 1 by observation; one that is unknown is left out.

    Raises:
        ValueError: a cell is something else.
    """
    labels: dict[str, float] = {}
    for name in OBSERVATIONS:
        cell = row.get(name)
        if cell is None:
            continue
        try:
            value = None if cell.strip() == "" else float(cell)
        except ValueError as error:
            raise ValueError(f"{where}: {name} must be 1, 0, -1 or blank, got {cell!r}") from error
        if value is None:
            if unmentioned == "zero":
                labels[name] = 0
        elif value == -1:
            if uncertain != "unknown":
                labels[name] = int(uncertain == "ones" or (uncertain == "mixed" and name in _UNCERTAIN_IS_ONE))
        elif value in (0, 1):
            labels[name] = int(value)
        else:
            raise ValueError(f"{where}: {name} must be 1, 0, -1 or blank, got {cell!r}")
    return labels
