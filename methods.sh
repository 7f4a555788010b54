#!/usr/bin/env bash
# Every method over contexts. Without arguments: the embedded toy; bash methods.sh quick: a small part of it, in minutes.
# On GPUs: profile=published model.path=... data.root=...
[ "${1:-}" != quick ] || set -- "matrix.task=[lvbench]" "matrix.context=[259,33]" "${@:2}"
exec bash "$(dirname "$0")/scripts/reproduce.sh" methods "$@"
