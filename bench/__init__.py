"""Measure convolution backends: check first, then time, then say. ``python -m bench --help`` starts here."""
