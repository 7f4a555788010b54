"""Published numbers and what the evidence says about them."""
