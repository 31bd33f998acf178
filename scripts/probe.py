"""Probe frozen embeddings or an encoder for the labels of a manifest.

    python scripts/probe.py --embeddings FILE.npz --datalist manifest.csv --labels view sex
    python scripts/probe.py --encoder encoder.pt --random 3 --pixels 16 --readings mean grid attentive average \\
        --datalist manifest.csv --train-on training --test-on test --labels view sex
    python scripts/probe.py --embeddings ours.npz,theirs.npz --datalist ours.csv --test-datalist theirs.csv --labels sex

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

from cxw_monai.io import RadiographError
from cxw_monai.io.files.printable import printable
from cxw_monai.metrics.probe_files import format_results, probe_files, read_films
from cxw_monai.metrics.probes import READINGS, ProbeSettings
from cxw_monai.weights.encoder import CheckpointError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", nargs="+", default=[], help="npz files that the inference wrote; A,B joins two")
    parser.add_argument("--encoder", nargs="+", default=[], help="encoders (encoder.pt, model.pt) to show the films to")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="add N networks with random weights")
    parser.add_argument("--pixels", type=int, metavar="N", help="add the films shrunk to NxN as a baseline")
    parser.add_argument("--datalist", required=True, help="manifest with image, patient_id and the labels")
    parser.add_argument("--train-on", nargs="+", default=[], metavar="SPLIT", help="fit on these splits of --datalist")
    parser.add_argument("--test-on", nargs="+", default=[], metavar="SPLIT", help="test on these splits")
    parser.add_argument("--test-datalist", help="a second manifest to test on, after fitting on --datalist")
    parser.add_argument("--labels", nargs="+", required=True, help="binary columns of the manifest, such as view sex")
    parser.add_argument("--readings", nargs="+", default=["mean"], choices=list(READINGS), help="default: mean")
    parser.add_argument("--output", default="probe.json", help="where the JSON goes (default: probe.json)")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamplings of the patients, 0 for no interval")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", action="store_true", help="add mean and deviation of a file's tokens, per channel")
    arguments = parser.parse_args()
    try:
        films = read_films(arguments.datalist, arguments.test_datalist, arguments.train_on, arguments.test_on)
        if films.left_out:
            print(f"{films.left_out} films are not trained on: their patients are tested", file=sys.stderr)
        report = probe_files(
            arguments.embeddings,
            films,
            arguments.labels,
            ProbeSettings(folds=arguments.folds, bootstrap=arguments.bootstrap, seed=arguments.seed),
            encoders=arguments.encoder,
            random=arguments.random,
            pixels=arguments.pixels,
            tokens=arguments.tokens,
            readings=arguments.readings,
            progress=lambda line: print(line, file=sys.stderr),
        )
        output = Path(arguments.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=2) + "\n")
    except (OSError, ValueError, CheckpointError, RadiographError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    print(format_results(report["results"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
