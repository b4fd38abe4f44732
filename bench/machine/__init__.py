"""The machine: what it is, what it can do at best, what a process uses of it. Imports no other room."""
