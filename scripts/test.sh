#!/usr/bin/env bash
# Installs what is pinned and runs the tests on all cores: `bash scripts/test.sh [pytest arguments]`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
export OMP_NUM_THREADS=1  # a process per core; threads of several would wait for each other
python -m pytest -n auto --dist loadfile "$@"
