"""report.html and compare.html: their content, charts and templates. Measures nothing."""
