"""report.html and compare.html: content, charts and templates.

Nothing is measured here: pages show what a run folder holds.
"""
