"""Backends for conv-impls. Importing this package imports no backend: conv-impls does that when one is first used."""
