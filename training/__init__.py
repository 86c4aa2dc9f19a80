"""Train a small GAN: `python -m training.run`."""

from inference.runtime.installation import require

require("tyro", "torch")
