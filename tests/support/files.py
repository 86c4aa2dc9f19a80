"""The folder of the checkout, and comparisons of folders."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
