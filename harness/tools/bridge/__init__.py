"""Why two results differ: chains of intermediate configurations that change one factor at a time."""
