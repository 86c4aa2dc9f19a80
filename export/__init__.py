"""Turn a checkpoint into files that any program can draw images from: `python -m export.run`."""
