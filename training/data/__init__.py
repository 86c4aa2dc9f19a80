"""Data sets in memory, and shuffled batches of them. Networks live in `gan`."""
