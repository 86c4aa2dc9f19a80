"""onnxruntime and the CUDA driver. No other folder touches onnxruntime.

Which file may be run is decided in `model_files`.
"""
