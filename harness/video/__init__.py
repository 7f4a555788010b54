"""Sampled frames of videos: which ones, decoded window by window, ahead of time, and what was computed from them."""
