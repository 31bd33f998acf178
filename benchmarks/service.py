"""The service under load and under `kill -9`: films answered, results in the archive, films a minute, memory.

An Orthanc is started beside it. Films are real ones (`--films`, a folder of pictures), each wrapped as a DX with UIDs
of its own. With `--kills`, the service is killed so often at random moments while they come in, and started again.

    python -m benchmarks.service --films ../shared/data/nih_cxr14_subset/images --count 200 --kills 20
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

from tests.helpers import ohif
from tests.helpers.films_as_dx import film_as_dx
from tests.helpers.forks import Fork, start_python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, required=True, help="folder of pictures of frontal chest films")
    parser.add_argument("--count", type=int, default=50, help="films to send (default 50)")
    parser.add_argument("--side", type=int, default=256, help="their size in px (default 256)")
    parser.add_argument("--kills", type=int, default=0, help="how often the service is killed (default 0)")
    parser.add_argument("--longest", type=float, default=10, help="seconds before a kill, at most (default 10)")
    parser.add_argument("--workers", type=int, default=1, help="of the service (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--minutes", type=float, default=60, help="to give up after (default 60)")
    a = parser.parse_args()
    if reason := ohif.missing():
        raise SystemExit(f"error: {reason}")
    with tempfile.TemporaryDirectory() as place, ohif.orthanc(Path(place)) as archive:
        print(json.dumps(measured(a, Path(place), archive), indent=1))
    return 0


def measured(a: argparse.Namespace, folder: Path, archive: ohif.Orthanc) -> dict[str, object]:
    """Send the films, kill the service, wait for the results."""
    pictures = sorted(a.films.iterdir())
    films = [film_as_dx(folder, pictures[number % len(pictures)], number, a.side) for number in range(a.count)]
    port, rng = ohif.free_port(), random.Random(a.seed)
    command = ["-m", "cxw_monai", "serve", folder / "queue", "--port", port]
    command += ["--send-to", archive.web, "--workers", a.workers]
    process = _started(command, folder, port)
    begun = time.monotonic()
    sender = threading.Thread(target=_send, args=(films, port))
    sender.start()
    kills, peak, end = 0, 0.0, begun + 60 * a.minutes
    while time.monotonic() < end and (sender.is_alive() or len(archive.instances("SEG")) < a.count):
        if kills < a.kills:
            time.sleep(rng.uniform(0.0, a.longest))
            os.kill(process.pid, signal.SIGKILL)
            process.wait(60)
            kills += 1
            process = _started(command, folder, port)
        else:
            time.sleep(1.0)
        peak = max(peak, _peak_megabytes(process.pid))
    seconds = time.monotonic() - begun
    states = json.loads(ohif.request(f"http://127.0.0.1:{port}/films?state=done"))
    os.kill(process.pid, signal.SIGTERM)
    process.wait(90)
    found = {kind: Counter(one["0020000D"]["Value"][0] for one in archive.instances(kind)) for kind in ("SEG", "SR")}
    return {
        "films": a.count,
        "kills": kills,
        "done": len(states),
        "studies with one SEG": sum(count == 1 for count in found["SEG"].values()),
        "studies with more": sum(count > 1 for count in found["SEG"].values()),
        "studies with one SR": sum(count == 1 for count in found["SR"].values()),
        "seconds": round(seconds, 1),
        "films a minute": round(60 * a.count / seconds, 1),
        "peak memory MB": round(peak),
        "files left": sum(path.suffix == ".dcm" for path in (folder / "queue").rglob("*")),
    }


def _started(command: list[object], folder: Path, port: int) -> Fork:
    process = start_python(command, folder)
    ohif.until(lambda: ohif.request(f"http://127.0.0.1:{port}/health"), 300, 0.1)
    return process


def _send(films: list[Path], port: int) -> None:
    """Send each film until it is acknowledged."""
    url = f"http://127.0.0.1:{port}/studies"
    for content in map(Path.read_bytes, films):
        ohif.until(partial(ohif.request, url, content, Content_Type="application/dicom"), 600, 0.2)


def _peak_megabytes(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
