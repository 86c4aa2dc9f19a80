"""onnxruntime's telemetry, which the commands and services of ganpack switch off.

From 1.31 on, onnxruntime looks up a host of Microsoft's, keeps a database below the user's cache
folder, and has a thread for both that makes forked processes hang at their end. It reads the
environment once, when it is imported.
"""

import os


def switch_off() -> None:
    """Keep onnxruntime from sending anything, unless the environment says otherwise.

    Only programs of ganpack call this. A host decides for itself.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
