"""Serve images over HTTP: `python -m examples.http_service artifacts/mnist --port 8000`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from examples.http_service.contract import DEFAULTS, Limits
from inference import ArtifactError, ProviderError
from inference.errors import report
from inference.model_files.artifact_files import generator_file
from inference.model_files.reading import read_file
from inference.runtime import telemetry

_RANGES = {
    "port": (0, 65_535),
    "most_images": (1, 65_536),
    "most_waiting": (1, 2**24),
    "most_connections": (2, 65_536),  # one that is answered, and one that asks for /health
    "seconds": (0.1, 3600),
}
_BACKLOG = 128
_OTHER_FILES = 64  # what a process has open besides connections


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command until SIGTERM or SIGINT; returns the exit code."""
    telemetry.switch_off()
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    limits = Limits(options.most_images, options.most_waiting, options.seconds)
    from examples.http_service.service import create_app

    file = generator_file(options.artifact)
    try:
        app = create_app(read_file(file), provider=options.provider, limits=limits)
    except ArtifactError as error:
        return report(ArtifactError(f"{file}: {str(error).removeprefix('artifact: ')}"))
    except ProviderError as error:
        return report(error)
    except ValueError as error:  # a provider that does not exist, or too little memory
        parser.error(str(error))
    import uvicorn

    uvicorn.run(app, **_server_settings(options))
    return 0


def _server_settings(options: argparse.Namespace) -> dict[str, Any]:
    from examples.http_service.connections import Bounds, Connections

    return {
        "host": options.host,
        "port": options.port,
        "access_log": False,
        "http": cast(Any, Connections(Bounds(options.most_connections))),
        "ws": "none",
        "backlog": _BACKLOG,
        "timeout_keep_alive": 5,
        # On SIGTERM no request is taken in any more, and those taken in are answered.
        "timeout_graceful_shutdown": int(options.seconds) + 1,
    }


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with a usage error for options that make no sense."""
    for name, (least, most) in _RANGES.items():
        value = getattr(options, name)
        if not least <= value <= most:  # NaN too
            option = name.replace("_", "-")
            parser.error(f"--{option} must be {least:,} to {most:,}, got {value}")
    if options.most_waiting < options.most_images:
        parser.error(
            f"--most-waiting {options.most_waiting} is less than one answer may have: "
            f"--most-images {options.most_images}"
        )
    files = options.most_connections + _BACKLOG + _OTHER_FILES
    if (allowed := _allow_open_files(files)) < files:
        parser.error(
            f"--most-connections {options.most_connections} needs {files:,} open files, this "
            f"system allows {allowed:,}: take fewer, or raise `ulimit -Hn`"
        )


def _allow_open_files(wanted: int) -> int:
    """Let this process have so many open files if that is allowed; returns how many it may have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= wanted:
        return wanted
    raised = wanted if hard == unlimited else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return raised


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.http_service",
        usage="python -m examples.http_service ARTIFACT [OPTIONS]",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("artifact", type=Path, help="artifact folder or its generator.onnx")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8000, help="0 takes a free one")
    add("--provider", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--most-images", type=int, default=DEFAULTS.count, help="images in one answer")
    add("--most-waiting", type=int, default=DEFAULTS.waiting, help="images that wait; else 429")
    add("--most-connections", type=int, default=1000, help="open connections; see the README")
    add(
        "--seconds",
        type=float,
        default=DEFAULTS.seconds,
        help="until the images are ready; else 503",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
