"""report.html and compare.html: content, charts and templates.

Pages show the content of a run folder. Nothing is measured here.
"""
