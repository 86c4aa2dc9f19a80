"""Bulk drawing and sweeps of trainings on many machines: see README.md."""
