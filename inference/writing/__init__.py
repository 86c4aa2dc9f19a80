"""Write images to files: pictures, arrays and folders, each atomically.

Nothing here knows a generator.
"""
