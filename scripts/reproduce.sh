#!/usr/bin/env bash
# One matrix from nothing to its table: answer what is missing, score through lmms-eval, report.
#   bash scripts/reproduce.sh <matrix> [overrides]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
matrix="$1" && shift
set -- engine.cpu_workers=2 "$@"  # matters without an accelerator only
harness() { .venv/bin/python -m harness "$@"; }

# Status 1: some answers failed and are stored as such; they belong into the table, so go on.
status=0
harness run "matrix=$matrix" "$@" || status=$?
[ "$status" -le 1 ] || exit "$status"
harness score "matrix=$matrix" "$@"
harness report "matrix=$matrix" "$@"
exit "$status"
