"""Probe frozen embeddings: `python scripts/probe.py --embeddings FILE.npz --datalist manifest.csv --labels view sex`.

Prints a row an embedding file and label: AUROC of a logistic regression under patient-disjoint cross-validation, its
95 % interval over resampled patients, and the counts. The same, with the settings, goes to the JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cxw_monai.evaluation.probes import ProbeSettings, format_results, probe_files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", nargs="+", required=True, help="npz files that the inference wrote")
    parser.add_argument("--datalist", required=True, help="manifest with image, patient_id and the labels")
    parser.add_argument("--labels", nargs="+", required=True, help="binary columns of the manifest, such as view sex")
    parser.add_argument("--output", default="probe.json", help="where the JSON goes (default: probe.json)")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamplings of the patients, 0 for no interval")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pixels", type=int, metavar="N", help="add the films shrunk to NxN as a baseline")
    parser.add_argument("--tokens", action="store_true", help="add mean and deviation of the patch tokens, per channel")
    arguments = parser.parse_args()
    try:
        report = probe_files(
            arguments.embeddings,
            arguments.datalist,
            arguments.labels,
            ProbeSettings(folds=arguments.folds, bootstrap=arguments.bootstrap, seed=arguments.seed),
            pixels=arguments.pixels,
            tokens=arguments.tokens,
            progress=lambda line: print(line, file=sys.stderr),
        )
        output = Path(arguments.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=2) + "\n")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(format_results(report["results"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
