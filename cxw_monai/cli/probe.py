"""Probes frozen embeddings or an encoder for the labels of a manifest.

Examples:
    cxw-monai probe --embeddings FILE.npz --datalist manifest.csv --labels view sex
    cxw-monai probe --encoder encoder.pt --random 3 --pixels 16 --readings mean grid attentive average \\
        --datalist manifest.csv --train-on training --test-on test --labels view sex
    cxw-monai probe --embeddings ours.npz,theirs.npz --datalist ours.csv --test-datalist theirs.csv --labels sex

Prints a row for each descriptor, reading and label: AUROC under patient-disjoint cross-validation, or on the films of a
split or of a second manifest after fitting on the others; its 95 % interval over resampled patients; and the counts.
The same, with the settings, goes to the JSON. An encoder is shown the films themselves; --random and --pixels put the
same network with random weights, and the films shrunk to a few pixels, beside it. The readings grid, attentive and
average need patch tokens: those of an encoder, or an embeddings file written with `--embedding patches`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

READINGS = ("mean", "grid", "attentive", "average")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("--embeddings", nargs="+", default=[], help="npz files that the inference wrote; A,B joins two")
    parser.add_argument("--encoder", nargs="+", default=[], help="encoders (encoder.pt, model.pt) to show the films to")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="add N networks with random weights")
    parser.add_argument("--pixels", type=int, metavar="N", help="add the films shrunk to NxN as a baseline")
    parser.add_argument("--datalist", required=True, help="manifest with image, patient_id and the labels")
    parser.add_argument("--train-on", nargs="+", default=[], metavar="SPLIT", help="fit on these splits of --datalist")
    parser.add_argument("--test-on", nargs="+", default=[], metavar="SPLIT", help="test on these splits")
    parser.add_argument("--test-datalist", help="a second manifest to test on, after fitting on --datalist")
    parser.add_argument("--labels", nargs="+", required=True, help="binary columns of the manifest, such as view sex")
    parser.add_argument("--readings", nargs="+", default=["mean"], choices=READINGS, help="default: mean")
    parser.add_argument("--output", type=Path, default="probe.json", help="where the JSON goes (default: probe.json)")
    parser.add_argument("--folds", type=int, default=5, help="of the cross-validation (default 5)")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamplings of the patients, 0 for no interval")
    parser.add_argument("--seed", type=int, default=0, help="of folds and resamplings (default 0)")
    parser.add_argument("--tokens", action="store_true", help="add mean and deviation of a file's tokens, per channel")


def run(a: argparse.Namespace) -> int:
    """Probes, prints the table and writes the JSON."""
    from cxw_monai.metrics.probe_files import format_results, probe_files, read_films
    from cxw_monai.metrics.probes import ProbeSettings

    films = read_films(a.datalist, a.test_datalist, a.train_on, a.test_on)
    if films.left_out:
        print(f"{films.left_out} films are not trained on: their patients are tested", file=sys.stderr)
    report = probe_files(
        a.embeddings,
        films,
        a.labels,
        ProbeSettings(folds=a.folds, bootstrap=a.bootstrap, seed=a.seed),
        encoders=a.encoder,
        random=a.random,
        pixels=a.pixels,
        tokens=a.tokens,
        readings=a.readings,
        progress=lambda line: print(line, file=sys.stderr),
    )
    a.output.parent.mkdir(parents=True, exist_ok=True)
    a.output.write_text(json.dumps(report, indent=2) + "\n")
    print(format_results(report["results"]))
    return 0
