"""What the paper says of attention and of its bound, measured on any model."""
