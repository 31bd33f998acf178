"""Measure view pairs, training steps, memory, latency and start: `python -m benchmarks.speed [--quick]`.

Prints one table and writes it as JSON. Every figure is a median over repeats with its spread; every case runs in a
process of its own. Training steps run with the default settings of the world model (all three objectives, all tokens of
the other view predicted, predictor 384 x 6) at 224 px with patches of 16, in turns with a plain PyTorch loop that does
the same. Run it on an otherwise idle machine. Without `--quick` image size, batch and data set (to a million small
files) grow too, which takes hours.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.speed.cases import AMPS, default_cases, format_report, run_benchmark
from benchmarks.speed.reading import measure_reading
from cxw_monai.io.files.printable import printable
from cxw_monai.networks import VIT_SIZES
from cxw_monai.weights.bundles import find_bundle


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller batches, 2 repeats by default")
    parser.add_argument("--reading", action="store_true", help="only reading, beside pydicom and Pillow")
    parser.add_argument("--output", default="benchmark.json", help="where the JSON goes (default: benchmark.json)")
    parser.add_argument("--repeats", type=int, help="timed repeats a figure (default: 5)")
    parser.add_argument(
        "--sizes", nargs="+", choices=sorted(VIT_SIZES), help="default: tiny small base; tiny base with --quick"
    )
    parser.add_argument("--amp", nargs="+", choices=AMPS, default=list(AMPS), help="none is fp32")
    arguments = parser.parse_args(argv)
    sizes = arguments.sizes or (["tiny", "base"] if arguments.quick else ["tiny", "small", "base"])
    repeats = arguments.repeats if arguments.repeats is not None else (2 if arguments.quick else 5)
    if repeats < 1:
        parser.error(f"--repeats must be at least 1, got {repeats}")
    output = Path(arguments.output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()  # a place that cannot be written to shows now, not after minutes
    except OSError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 2
    if arguments.reading:
        return report_reading(output, max(repeats, 15))
    cases = default_cases(sizes, arguments.amp, arguments.quick, str(find_bundle("chexworld_pretraining").resolve()))
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    report = run_benchmark(cases, repeats, lambda line: print(line, file=sys.stderr, flush=True))
    output.write_text(json.dumps({"date": date, "quick": arguments.quick, **report}, indent=2) + "\n")
    print(format_report(report))
    return 1 if any("error" in result for result in report["results"]) else 0


def report_reading(output: Path, repeats: int) -> int:
    """Reading beside the same steps by hand, and beside Pillow's bare decoding."""
    with TemporaryDirectory() as folder:
        rows, bare = measure_reading(Path(folder), repeats=repeats)
    output.write_text(json.dumps({"by_hand": [asdict(r) for r in rows], "bare": [asdict(r) for r in bare]}, indent=2))
    print("processor time over that of the same steps by hand ('bare': of decoding alone), median [quartiles]")
    for row in (*rows, *bare):
        low, high = row.quartiles
        print(f"{row.name:32} {row.median:5.2f} [{low:.2f}, {high:.2f}] {row.milliseconds:8.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
