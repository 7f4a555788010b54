"""From a matrix to cells, their identity, and what they will cost; nothing here answers a question."""
