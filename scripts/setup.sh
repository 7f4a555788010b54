#!/usr/bin/env bash
# Makes .venv with the known-good versions of constraints.txt. Run again it does nothing, in under a second.
#   EXTRAS=dev,gpu bash scripts/setup.sh     more extras (gpu: flash-attn, slurm, ray, torchcodec)
#   PYTHON=python3.12 bash scripts/setup.sh  another interpreter (3.11 to 3.14)
#   TRANSFORMERS=5.5.4 bash scripts/setup.sh  .venv-transformers-5.5.4 with that release and what goes with it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

EXTRAS="${EXTRAS:-dev}"
VENV=".venv${TRANSFORMERS:+-transformers-$TRANSFORMERS}"
STAMP="$VENV/.installed"
WANT="$(cat pyproject.toml constraints.txt <(echo "$EXTRAS") | cksum)"
[ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$WANT" ] && exit 0

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1; }
# An environment that is there already (uv makes one without pip) goes first; it has the versions that were asked for.
candidates="${PYTHON:-$VENV/bin/python python3.11 python3.12 python3.13 python3.14 python3 python}"
for python in $candidates; do
    if supported "$python"; then break; fi
    python=""
done
if [ -z "${python:-}" ]; then
    echo "error: no Python 3.11 to 3.14 among: $candidates" >&2
    echo "  without root: pip install uv && uv venv --seed --python 3.12 $VENV, then the same command again" >&2
    echo "  or name one that is installed: PYTHON=/path/to/python3.12 bash scripts/setup.sh" >&2
    exit 2
fi

started=$SECONDS
echo "setup: $("$python" --version) -> $VENV (extras: $EXTRAS); torch is large, this takes a few minutes once"
supported "$VENV/bin/python" || "$python" -m venv --clear "$VENV"
"$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$VENV/bin/python" -m ensurepip >/dev/null
LOG="$VENV/setup.log"
wanted=(-c constraints.txt -e ".[$EXTRAS]")
if [ -n "${TRANSFORMERS:-}" ]; then
    grep -vE '^(transformers|tokenizers|huggingface[-_]hub|datasets)==' constraints.txt >"$VENV/constraints.txt"
    wanted=(-c "$VENV/constraints.txt" -e ".[$EXTRAS]" "transformers==$TRANSFORMERS")
fi
if ! "$VENV/bin/python" -m pip install --disable-pip-version-check --quiet "${wanted[@]}" >"$LOG" 2>&1; then
    tail -20 "$LOG" >&2
    echo "error: pip could not install the packages; whole log: $LOG. Put it right and run: bash scripts/setup.sh" >&2
    exit 1
fi
echo "$WANT" >"$STAMP"
echo "setup: done in $((SECONDS - started)) s"
