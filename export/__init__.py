"""Export a generator snapshot into files that any program can run: `python -m export.run`."""

from inference.runtime.installation import require

require("tyro", "torch", "onnx", "onnxscript")
