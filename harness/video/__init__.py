"""Decode, sample, prefetch and keep the frames and features of videos."""
