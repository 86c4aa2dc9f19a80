"""The files of a run: how each is named, written, read and checked.

What is measured and drawn while a run trains lives in `records`.
"""
