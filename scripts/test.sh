#!/usr/bin/env bash
# Sets up and passes the tests. Arguments go to pytest: bash scripts/test.sh tests/compress -k golden
#   WORKERS=0 bash scripts/test.sh --pdb ...   in one process; 2 by default
#   TRANSFORMERS=5.5.4 bash scripts/test.sh    under another release of transformers, in an environment of its own
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # processes that share cores do better with a thread each
exec ".venv${TRANSFORMERS:+-transformers-$TRANSFORMERS}/bin/python" -m pytest -n "${WORKERS:-2}" --dist worksteal "$@"
