"""onnxruntime's telemetry, which our commands and services switch off for themselves.

From 1.31 on, onnxruntime looks up a host of Microsoft's, keeps a database below the user's cache
folder, and has a thread for both that makes forked processes hang at their end. It reads the
environment once, when it is imported.
"""

import os


def switch_off() -> None:
    """Keep onnxruntime from sending anything, unless the environment says otherwise.

    Only for programs of our own: the process of a host belongs to the host.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
