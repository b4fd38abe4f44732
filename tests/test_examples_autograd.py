"""The notebook that compares gradients with those of torch."""

from __future__ import annotations

import pytest
from test_examples import NOTEBOOKS, OWN, execute


def test_the_notebook_against_autograd_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = set(NOTEBOOKS) - set(OWN)
    assert len(execute(path, monkeypatch)) == 2
