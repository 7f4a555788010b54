"""From a matrix of cells to durable answers: cells, identity, plan, workers, engines."""
