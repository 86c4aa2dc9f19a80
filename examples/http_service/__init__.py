"""Images over HTTP: `python -m examples.http_service ARTIFACT`."""

from inference.runtime.installation import require

require("fastapi", "uvicorn", "httptools", extras="service")
