"""Pure compiled kernels: arrays and integers in, outputs filled; no validation, no registry, no module state."""
