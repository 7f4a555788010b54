"""The embedded default: a tiny trained Qwen2.5-VL, synthetic videos, and four toy benchmarks.

The toy has no special case anywhere else in the harness: its checkpoint loads through
`from_pretrained`, its videos are H.264 files, its annotations have the schemas of the real data.
"""
