"""What `scripts/gpu_acceptance.py` checks."""
