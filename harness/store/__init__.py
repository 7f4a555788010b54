"""Records on disk: answers, questions and the manifest of each cell."""
