"""Per-question results of other code bases: read as cells of their own kind, and written from ours."""
