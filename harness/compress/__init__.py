"""The compression method and nothing else: pure torch, no patching of transformers, no lmms-eval."""
