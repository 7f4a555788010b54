"""Benchmarks: where their files lie, their questions, parsers, metrics, and getting them onto the disk.

Nothing here imports lmms-eval except `harness.lmms.task`.
"""
