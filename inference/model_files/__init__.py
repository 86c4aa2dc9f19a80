"""Generator files, which are not trusted: how they are read, checked and loaded.

What runs a checked file lives in `runtime`.
"""
