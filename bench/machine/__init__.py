"""The machine: processor, libraries, peak rates, and the resource use of a process. Imports no other part of bench."""
