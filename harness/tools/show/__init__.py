"""Looking into single answers."""
