"""The machine: its processor, libraries and peak rates, and what a process uses of it. Imports no other room."""
