"""The compression method and nothing else: pure torch, no patching of transformers, no lmms-eval."""

CORE_VERSION = 1
"""Version of what all methods share: driver, cache, attention, positions, decoding. Raise it when answers change."""
