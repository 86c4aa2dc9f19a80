"""Measurements against other ways of doing the same; not part of the tests."""
