"""Benchmark reproduction harness for long-video multimodal models."""
