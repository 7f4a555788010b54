"""Stored baselines and the score-regression check."""
