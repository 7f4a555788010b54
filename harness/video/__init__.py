"""Sampled frames of videos: which ones, decoded window by window, ahead of time, and what was computed from them."""

VERSION = 1
"""Version of sampling and decoding, part of every answer's identity. Raise it when another frame, or another pixel of
one, comes out of a file; frames stored with the tests fail until then."""
