"""Doctest collection leaves out the files that import a library which need not be there, or register a backend."""

collect_ignore_glob = ["*_peer.py", "ours.py", "onnx_model.py"]
