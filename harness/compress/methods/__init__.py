"""One file per compression method; its `build(options, family)` returns the `Method`. A file here is all it takes."""
