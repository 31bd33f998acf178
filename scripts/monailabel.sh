#!/usr/bin/env bash
# The MONAI Label server: `bash scripts/monailabel.sh STUDIES` (a folder of films, or a DICOMweb server's address), or
# `bash scripts/monailabel.sh --selftest`; `--help` lists the options. Makes the environment that it needs the first time
# (requirements-monailabel.txt; in CXW_MONAILABEL_ENV, by default .venv-monailabel) and again when that file has changed.
set -euo pipefail
project="$(cd "$(dirname "$0")/.." && pwd)"
environment="${CXW_MONAILABEL_ENV:-$project/.venv-monailabel}"
server="monailabel==0.8.5"

wanted="$(cat "$project/requirements-monailabel.txt" | cksum) $server"
if [ "$(cat "$environment/cxw_monai.stamp" 2> /dev/null)" != "$wanted" ]; then
    python=""
    for candidate in "${PYTHON:-}" python3.11 python3; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2> /dev/null; then
            python="$candidate"
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "error: MONAI Label 0.8.5 needs Python 3.11 here; install it, or name it: PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    echo "Making $environment (about 3 GB; some minutes)" >&2
    "$python" -m venv --clear "$environment"
    "$environment/bin/python" -m pip install --disable-pip-version-check -q -r "$project/requirements-monailabel.txt"
    "$environment/bin/python" -m pip install --disable-pip-version-check -q --no-deps "$server"
    printf '%s' "$wanted" > "$environment/cxw_monai.stamp"
fi
export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"
for option in "$@"; do  # the self-test is one of the tests, which are in the checkout only
    [ "$option" != --selftest ] || exec "$environment/bin/python" -P -m tests.label.selftest "$@"
done
exec "$environment/bin/python" -m cxw_monai.label --app "$project/.monailabel" "$@"  # a later --app counts
