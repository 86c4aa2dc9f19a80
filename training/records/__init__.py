"""What a run records while it trains: metrics, sample grids, progress, times.

What a resume reads back lives in `run_folder`.
"""
