"""Looks through a folder of radiographs before it is trained on.

Finds unreadable files, duplicates and near duplicates, inverted, turned and mirrored films, burnt-in borders, and films
that are no frontal chest, too small or without contrast. Writes OUTPUT/radiographs.csv (a row per file) and
OUTPUT/radiographs.html (the flagged films). Findings are suspicions: look at them.

Example: cxw-monai check films/ --output quality --workers 4
Exit status: 0 nothing found, 1 something flagged, 2 wrong usage.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    from cxw_monai.quality.records import QualitySettings

    defaults = QualitySettings()
    parser.add_argument("folder", type=Path, help="searched recursively")
    parser.add_argument("--output", type=Path, default=Path("quality"), help="where the results go (default quality)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--per-check", type=int, default=60, help="most films shown for each finding (default 60)")
    parser.add_argument("--min-side", type=int, default=defaults.min_side, metavar="PX", help="default %(default)s")
    parser.add_argument("--min-contrast", type=float, default=defaults.min_contrast, help="0 to 1, default %(default)s")
    parser.add_argument("--min-border", type=float, default=defaults.min_border, help="0 to 1, default %(default)s")
    parser.add_argument(
        "--near-distance",
        type=int,
        default=defaults.near_distance,
        help="bits of 256 in which near duplicates may differ; -1 for no such check (default %(default)s)",
    )
    parser.add_argument(
        "--file-seconds",
        type=float,
        default=defaults.file_seconds,
        help="longest time for a file (default %(default)g)",
    )
    parser.add_argument(
        "--anatomy",
        default=defaults.anatomy,
        help="what the films show; only of chest are turned, mirrored and inverted films, and those of something else, "
        "looked for (default %(default)s)",
    )


def run(a: argparse.Namespace) -> int:
    """Checks the folder; 1 where a film was flagged."""
    from cxw_monai.io.results.folders import output_lock
    from cxw_monai.quality import CHECKS, QualitySettings, check_radiographs, write_csv, write_page

    settings = QualitySettings(a.min_side, a.min_contrast, a.min_border, a.near_distance, a.file_seconds, a.anatomy)
    if a.per_check < 0:
        raise ValueError(f"--per-check must be at least 0, got {a.per_check}")
    if a.workers < 1:
        raise ValueError(f"workers must be at least 1, got {a.workers}")
    if not a.folder.is_dir():
        raise ValueError(f"{a.folder}: not a folder; give the folder that holds the radiographs")
    page = a.output / "radiographs.html"
    with output_lock(a.output):
        records = check_radiographs(a.folder, settings, workers=a.workers, progress=True)
        write_csv(a.output / "radiographs.csv", records)
        write_page(page, records, a.folder, per_check=a.per_check, workers=a.workers, seconds=a.file_seconds)
    counts = Counter(flag for record in records for flag in record.flags)
    for name in CHECKS:
        print(f"{name:18} {counts[name]:6}")
    flagged = sum(bool(record.flags) for record in records)
    print(f"{flagged} of {len(records)} files flagged; see {page}")
    return int(flagged > 0)
