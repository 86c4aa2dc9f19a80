"""Measurements, also of other programs that do the same; not part of the tests."""
