"""The files of a run: how each is named, written, read and checked.

Measurements and sample grids of a running training are in `records`.
"""
