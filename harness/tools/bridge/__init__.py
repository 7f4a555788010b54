"""Why two results differ: chains of twin cells that change one factor at a time."""
