"""Export a generator snapshot into files that any program can run: `python -m export.run`."""
