"""What made the toy's checkpoint: model and tokenizer, training batches, the training itself, and its accuracy.

Nothing of the harness imports this; see scripts/train_toy.py.
"""
