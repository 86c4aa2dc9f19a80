"""Write files atomically, read files of others within limits, and print safely.

This folder does not know generators.
"""
