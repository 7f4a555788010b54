"""The compression methods and nothing else: pure torch, no patching of transformers, no lmms-eval."""

CORE_VERSION = 1
"""Raised by hand when what all methods share (driver, cache, attention, positions, decoding) changes answers.

Part of every cell's identity. Golden vectors and pinned answers fail when answers change without it.
"""
