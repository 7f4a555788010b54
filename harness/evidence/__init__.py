"""Stored and imported cells as data."""
