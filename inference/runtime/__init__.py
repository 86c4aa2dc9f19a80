"""onnxruntime and the CUDA driver: the only modules that touch either."""
