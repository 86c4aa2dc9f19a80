"""Scores of generated images, the choice of the best snapshot, and the verdict at a run's end.

How scores are named and printed is in `run_folder.scores`.
"""
