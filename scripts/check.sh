#!/usr/bin/env bash
# Sets up and checks the code: ruff's rules, its format, types (mypy, strict; see pyproject.toml), and its structure.
# Every check runs, also when one before it failed; the status says whether all passed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh || exit
status=0
for check in "ruff check" "ruff format --check" "mypy"; do
    echo "== $check"
    .venv/bin/python -m $check || status=1
done
echo "== structure"
.venv/bin/python scripts/structure.py --report-only || status=1
exit $status
