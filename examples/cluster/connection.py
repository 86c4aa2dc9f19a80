"""How both commands come to a Ray: one of their own, or a cluster's."""

import argparse
import logging
import os


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """--address and --workers."""
    add = parser.add_argument_group("where it runs").add_argument
    add(
        "--address",
        default=os.environ.get("RAY_ADDRESS", "local"),
        metavar="HOST:PORT",
        help="a running Ray cluster; auto: the one that this machine is in; local: one of its own",
    )
    add("--workers", type=int, metavar="N", help="cores of a local Ray to use (default: all)")


def connect(options: argparse.Namespace) -> None:
    """Start or join the Ray of the options.

    Raises:
        ConnectionError, ModuleNotFoundError: with what to do.
        ValueError: for options that do not go together.
    """
    local = options.address == "local"
    if options.workers is not None and (not local or options.workers < 1):
        raise ValueError("--workers must be at least 1, and goes with --address local")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError("Ray is missing: pip install -e '.[cluster]'") from None
    own = {"num_cpus": options.workers, "include_dashboard": False} if local else {}
    ray.init(
        options.address,
        ignore_reinit_error=True,
        log_to_driver=False,
        logging_level=logging.ERROR,
        **own,
    )
