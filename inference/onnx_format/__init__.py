"""Read the content of an ONNX file before a runtime sees it. Standard library only.

This folder does not know generators.
"""
