"""Scores, statistics, verdicts, tables and figures from stored answers."""
