"""What an ONNX file holds, read before a runtime sees it, without a library.

Nothing here knows a generator.
"""
