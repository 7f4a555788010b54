"""Every stored answer as pages that open without a server: questions, and the answers of all cells to each."""
