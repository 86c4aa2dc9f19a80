"""Images over HTTP: `python -m examples.http_service ARTIFACT`."""
