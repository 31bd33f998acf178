#!/usr/bin/env bash
# Installs what is pinned and runs the tests: `bash scripts/test.sh [pytest arguments]`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
python -m pytest "$@"
