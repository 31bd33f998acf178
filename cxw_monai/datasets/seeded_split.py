"""The split of a data set that is published without one."""

from __future__ import annotations

from collections.abc import Sequence

from cxw_monai.data.schema import Record

from .common import Job, hold_out

__all__ = ["split_seeded"]


def split_seeded(
    job: Job, records: Sequence[Record], test: float | None = None, validation: float | None = None
) -> None:
    """Splits by patient: ``test`` of all patients first, then ``validation`` of those that are left.

    Args:
        job: its seed, and its shares where none are given.
        records: the whole data set; ``split`` is set.
        test: share of all patients.
        validation: share of the patients that aren't test.

    Raises:
        ValueError: fewer patients than splits.
    """
    for record in records:
        record.split = "training"
    hold_out(records, job.test if test is None else test, job.seed, "test")
    rest = [record for record in records if record.split == "training"]
    hold_out(rest, job.validation if validation is None else validation, job.seed)
