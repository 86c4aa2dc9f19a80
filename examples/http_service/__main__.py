"""Serve images over HTTP: `python -m examples.http_service runs/demo/artifact --port 8000`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from examples.http_service.contract import DEFAULTS, Limits
from examples.http_service.service import create_app
from inference import ArtifactError, ProviderError
from inference.model_files.artifact_files import generator_file
from inference.runtime import telemetry


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command until SIGTERM or SIGINT; returns the exit code."""
    telemetry.switch_off()
    options = _parser().parse_args(arguments)
    file = generator_file(options.artifact)
    limits = Limits(options.most_images, options.most_waiting, options.seconds)
    try:
        app = create_app(file.read_bytes(), provider=options.provider, limits=limits)
    except (ArtifactError, ProviderError, OSError) as error:
        print(f"error: {file}: {error}", file=sys.stderr)
        return 1
    import uvicorn

    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        access_log=False,
        limit_concurrency=options.most_connections,
        timeout_keep_alive=5,
        # On SIGTERM no request is taken in any more, and those taken in are answered.
        timeout_graceful_shutdown=int(options.seconds) + 1,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.http_service",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("artifact", type=Path, help="artifact folder or its generator.onnx")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8000, help="0 takes a free one")
    add("--provider", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--most-images", type=int, default=DEFAULTS.count, help="in one answer")
    add("--most-waiting", type=int, default=DEFAULTS.waiting, help="images, else 429")
    add("--most-connections", type=int, default=1000, help="at once, else 503")
    add("--seconds", type=float, default=DEFAULTS.seconds, help="that a request may take, else 503")
    return parser


if __name__ == "__main__":
    sys.exit(main())
