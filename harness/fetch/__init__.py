"""Getting a benchmark onto the disk, and checking it there."""
