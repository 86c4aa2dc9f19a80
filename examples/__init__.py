"""Hosts that embed the sampler, each in a folder of its own."""
