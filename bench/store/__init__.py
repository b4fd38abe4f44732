"""What is kept of a run: records, the run folder, pytest-benchmark's JSON. Imports no other room."""
