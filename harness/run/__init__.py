"""From planned cells to durable answers: the loop over videos, workers, engines, supervision, progress."""
