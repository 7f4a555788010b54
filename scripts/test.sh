#!/usr/bin/env bash
# Sets up and passes the tests. Arguments go to pytest: bash scripts/test.sh tests/compress -k golden
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
HF_HUB_OFFLINE=1 exec .venv/bin/python -m pytest "$@"
