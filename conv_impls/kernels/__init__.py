"""Pure compiled kernels: arrays and integers in, outputs filled; no validation, no registry.

`launch` and `memory` in ``runtime`` are how a backend starts one and what it hands over.
"""
