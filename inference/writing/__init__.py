"""Files: images are written, each file whole, and those of others are read within limits.

Nothing here knows a generator.
"""
