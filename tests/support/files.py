"""Where the checkout is, and whether something has come to be there."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
