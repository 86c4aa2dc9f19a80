"""Data sets in memory, and endless batches of them. No networks."""
