#!/usr/bin/env bash
# Every method over contexts. Without arguments: the embedded toy; in minutes: matrix.task=[lvbench] matrix.context=[259]
# On GPUs: profile=published model.path=... data.root=...
exec bash "$(dirname "$0")/scripts/reproduce.sh" methods "$@"
