#!/usr/bin/env bash
# What a machine with a GPU has to show before anything long runs on it; minutes, no downloads, no data.
#   bash scripts/gpu_acceptance.sh                 the full shape of Qwen2.5-VL-7B on the GPUs that are visible
#   bash scripts/gpu_acceptance.sh --size tiny     the same checks on a few thousand weights, also without a GPU
# PYTHON names the interpreter; by default that of .venv where there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "$python" scripts/gpu_acceptance.py "$@"
