"""Benchmarks: what their folders in ``tasks/`` say of them, their questions, parsers, metrics and submissions.

Nothing here imports lmms-eval.
"""
