"""How good images are, which checkpoint is best, and the verdict at a run's end."""
