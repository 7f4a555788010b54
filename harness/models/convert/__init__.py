"""Converting published weights to a layout that `from_pretrained` loads. Nothing here takes part in an answer."""
