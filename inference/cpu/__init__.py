"""Generating images on the processor, tile by tile."""
