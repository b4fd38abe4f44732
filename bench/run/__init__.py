"""Measurement: options -> cases -> backend processes compute, the parent process checks -> records."""
