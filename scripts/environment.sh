# Sourced by demo.sh and test.sh from the project's root: an environment with the pinned requirements and the package.
# Uses the active virtual or conda environment, else .venv, which it makes; installs only when a requirement changed.
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    if [ ! -f .venv/bin/activate ]; then
        python3 -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || {
            echo "error: python3 is $(python3 --version 2>&1), Python 3.10 to 3.13 is needed" >&2
            exit 1
        }
        echo "Making .venv"
        python3 -m venv .venv || { rm -rf .venv; echo "error: python3 -m venv failed (Debian: apt install python3-venv)" >&2; exit 1; }
    fi
    . .venv/bin/activate
fi

stamp="$(python -c 'import sys; print(sys.prefix)')/cxw_monai.stamp"
wanted="$(cat requirements.txt requirements-nodeps.txt pyproject.toml | cksum) $PWD"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing requirements.txt (a few minutes the first time)"
    python -m pip install --disable-pip-version-check -q -r requirements.txt
    python -m pip install --disable-pip-version-check -q --no-deps -r requirements-nodeps.txt
    python -m pip install --disable-pip-version-check -q --no-deps -e .
    printf '%s' "$wanted" > "$stamp"
fi
