"""The stored data of a run: records, the run folder, pytest-benchmark's JSON. Imports no other subpackage of bench."""
