"""User backends: ``--plugin`` names a module, or the path of a file, that registers them when it is imported.

A text with a path separator or the ending .py is a path. It is made absolute, so that a repeated case and a resumed run
find the file from any folder. Any other text is a module; the current folder is searched first. Imports of a file are
also searched in the folder of the file, as for a script. Limits: a module is recorded only by its name.
"""

from __future__ import annotations

import importlib
import os
import sys
import zlib
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path


def recorded(text: str) -> str:
    """The plug-in as a run records it: the name of a module, or an absolute path; empty for none."""
    return os.path.abspath(text) if _is_path(text) else text


def check(text: str) -> None:
    """Raise ImportError or OSError, with the reason, if `load` cannot find the plug-in, or its name is ambiguous."""
    if _is_path(text):
        path = Path(text)
        if path.is_dir():
            raise IsADirectoryError("it is a folder; name a file in it, or a module")
        if not path.is_file():
            raise FileNotFoundError("there is no such file")
        return
    # For "package.module", the package decides where it is found.
    here = PathFinder.find_spec(text.partition(".")[0], [os.getcwd()])
    if here is None:
        return
    if here.origin is None:
        raise IsADirectoryError("it is a folder without __init__.py; name a file in it, or a module")
    elsewhere = _elsewhere(text.partition(".")[0])
    if elsewhere and os.path.realpath(elsewhere) != os.path.realpath(here.origin):
        name = os.path.relpath(here.origin)
        raise ImportError(f"it is ./{name} and also the module {elsewhere}; write ./{name} for the file here")


def load(text: str) -> None:
    """Import the plug-in, once."""
    if not _is_path(text):
        importlib.import_module(text)
        return
    path = Path(text)
    # A unique module name: files of the same name may exist in several folders.
    name = f"{path.stem}_{zlib.crc32(os.fsencode(path)):08x}"
    if name in sys.modules:
        return
    spec = spec_from_loader(name, SourceFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _is_path(text: str) -> bool:
    return os.sep in text or text.endswith(".py")


def _elsewhere(name: str) -> str:
    """Origin of a module of this name outside the current folder; empty if there is none."""
    if name in sys.builtin_module_names:
        return "built into Python"
    places = [place for place in sys.path if os.path.abspath(place) != os.getcwd()]
    spec = PathFinder.find_spec(name, places)
    return (spec.origin or "") if spec else ""
