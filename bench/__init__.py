"""Measure convolution backends: check first, then time, then report. Start with ``python -m bench --help``."""
