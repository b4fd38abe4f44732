"""Doctest collection leaves out the files that import a library which need not be installed."""

collect_ignore_glob = ["*_peer.py"]
