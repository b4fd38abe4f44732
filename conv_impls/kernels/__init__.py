"""Pure compiled kernels: arrays and integers in, outputs filled; no validation, no registry.

A backend starts a kernel with `launch` and passes it the buffers of `memory`; both are in ``runtime``.
"""
