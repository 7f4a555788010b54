"""Sampled frames of videos: which ones, decoded window by window, ahead of time, and what was computed from them."""

VERSION = 1
"""Version of sampling and decoding. Raise it when another frame, or another pixel of one, comes out of a file."""
