"""Generating images on a CUDA device: noise, network and copies run on one stream.

The driver's functions and onnxruntime are in `runtime`.
"""
