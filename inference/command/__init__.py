"""What `python -m inference.run` needs besides the sampler: its options, reports and signals."""
