"""Benchmarks as data: questions, answer parsers, metrics, downloads, checks and submissions."""
