"""Train a small GAN: `python -m training.run`."""
