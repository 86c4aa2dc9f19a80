"""How steps are run: plain, compiled, in CUDA graphs, by several processes.

What a step computes is in `gan`.
"""
