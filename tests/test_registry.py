"""The registry: found by being there, one name one backend, broken things are loud."""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import conv_impls
from conv_impls import BackendError, Conv2dProblem, UnknownBackendError, conv2d, get_backend, plan, register, registry

Registered = dict[str, registry.Backend]
X, W = np.ones((1, 5, 5), "f4"), np.ones((2, 1, 3, 3), "f4")


def test_every_file_is_a_backend_with_a_full_description() -> None:
    files = {p.stem for p in (Path(conv_impls.__file__).parent / "backends").glob("[!_]*.py")}
    assert files == set(registry.sources())
    for name in files:
        backend = get_backend(name)
        assert backend.name == name
        assert all((backend.idea, backend.source, backend.nan_spread))


def test_names_come_sorted_and_include_what_is_registered(registered: Registered) -> None:
    @register("zz_mine")
    def run(x: Any, weight: Any, bias: Any, problem: Any) -> Any:
        return np.zeros(problem.output_shape, x.dtype)

    names = conv_impls.backends()
    assert list(names) == sorted(names)
    # Other modules of the suite may have registered more in this process.
    assert {*registry.sources(), "zz_mine"} <= set(names)
    assert conv2d(X, W, backend="zz_mine").shape == (2, 3, 3)


def test_an_unknown_name_lists_the_known_ones_closest_first() -> None:
    with pytest.raises(UnknownBackendError, match="no backend 'numba_dirct'; did you mean 'numba_direct'") as error:
        get_backend("numba_dirct")
    assert all(name in str(error.value) for name in conv_impls.backends())


@pytest.mark.parametrize("name", ["numba_direct", "mine"])
def test_a_name_is_registered_once(registered: Registered, name: str) -> None:
    def run(x: Any, weight: Any, bias: Any, problem: Any) -> Any: ...

    if name == "mine":
        register(name)(run)
    with pytest.raises(BackendError, match=f"'{name}'.*the name is taken"):
        register(name)(run)


def test_a_function_of_another_shape_is_refused() -> None:
    def run(x: Any, w: Any) -> Any: ...

    with pytest.raises(BackendError, match=r"expected one of run\(x, weight, bias, problem\), prepare.*got run\(x"):
        register("mine")(run)


@pytest.mark.parametrize("answer", [np.zeros((1, 2, 3, 4), "f4"), np.zeros((1, 2, 3, 3), "f8"), None, 3])
def test_a_wrong_output_names_the_backend(registered: Registered, answer: Any) -> None:
    @register("mine")
    def run(x: Any, weight: Any, bias: Any, problem: Any) -> Any:
        return answer

    with pytest.raises(BackendError, match=r"backend 'mine' returned .* where \(1, 2, 3, 3\) float32 was expected"):
        conv2d(X, W, backend="mine")


def test_a_reason_not_to_support_reaches_the_caller(registered: Registered) -> None:
    @register("mine", supports=lambda problem: "only on Sundays")
    def run(x: Any, weight: Any, bias: Any, problem: Any) -> Any: ...

    with pytest.raises(conv_impls.UnsupportedError, match=r"backend 'mine' cannot do mb1ic1ih5.*: only on Sundays"):
        conv2d(X, W, backend="mine")


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"a": "a"}, "conv2d: backend 'a' chooses 'a': a cycle; use a backend that computes"),
        ({"a": "b", "b": "a"}, "backend 'a' chooses 'b', which chooses 'a': a cycle"),
        ({"a": "b", "b": "c", "c": "b"}, "backend 'a' chooses 'b', which chooses 'c', which chooses 'b': a cycle"),
        ({"a": None}, "backend 'a' chooses None: not the name of a backend"),
        ({"a": "b", "b": ["a"]}, r"backend 'a' chooses 'b', which chooses \['a'\]: not the name of a backend"),
    ],
)
def test_choices_that_lead_nowhere_are_said_in_words(
    registered: Registered, choices: dict[str, Any], words: str
) -> None:
    for name, chosen in choices.items():

        def choose(problem: Any, precision: Any, threads: Any, eager: Any, chosen: Any = chosen) -> Any:
            return chosen

        choose.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in registry.CHOOSE]
        )
        register(name)(choose)
    with pytest.raises(BackendError, match=words):
        conv2d(X, W, backend="a")


def test_a_choice_of_a_choice_computes(registered: Registered) -> None:
    @register("first")
    def first(problem: Any, precision: Any, threads: Any, eager: Any) -> str:
        return "second"

    @register("second")
    def second(problem: Any, precision: Any, threads: Any, eager: Any) -> str:
        return "numpy_strided"

    assert conv_impls.plan(Conv2dProblem.from_arrays(X[None], W), W, backend="first").backend == "numpy_strided"


def fake_point(monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    point = EntryPoint(name, module, registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "_points", lambda: {name: point})
    registry.sources.cache_clear()


def test_an_entry_point_is_found_and_loaded_on_first_use(
    registered: Registered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "their_plugin.py").write_text(
        "from conv_impls import register\nimport numpy as np\n"
        "@register('theirs')\ndef run(x, weight, bias, problem):\n"
        "    return np.full(problem.output_shape, 7, x.dtype)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    fake_point(monkeypatch, "theirs", "their_plugin")
    try:
        assert "theirs" in conv_impls.backends()
        assert conv2d(X, W, backend="theirs")[0, 0, 0] == 7
    finally:
        registry.sources.cache_clear()


@pytest.mark.parametrize(
    ("name", "module", "error", "words"),
    [
        ("theirs", "no_such_module_anywhere", ModuleNotFoundError, "no_such_module_anywhere"),
        ("theirs", "json", BackendError, "was imported but does not register 'theirs'"),
        ("numba_direct", "json", BackendError, "has the name of a built-in backend"),
    ],
)
def test_a_broken_entry_point_is_loud(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, error: type[Exception], words: str
) -> None:
    fake_point(monkeypatch, name, module)
    monkeypatch.setattr(registry, "_registered", {})
    try:
        with pytest.raises(error, match=words):
            get_backend(name)
    finally:
        monkeypatch.undo()
        registry.sources.cache_clear()


def test_auto_takes_fft_only_for_large_kernels_and_never_when_strict() -> None:
    small = Conv2dProblem.from_label("mb1ic64ih56oc64oh56kh3ph1")
    large = Conv2dProblem.from_label("mb1ic64ih128oc64oh128kh63ph31")
    assert registry.resolve("test", "auto", small, "standard", 1, True).name != "scipy_fft"
    assert registry.resolve("test", "auto", large, "standard", 1, True).name == "scipy_fft"
    assert registry.resolve("test", "auto", large, "strict", 1, True).accuracy == "direct"


@pytest.mark.parametrize("name", ["", "a,b", "mine@v1", "my name", 3, lambda x: x])
def test_a_name_that_cannot_be_one_is_refused_at_once(name: Any) -> None:
    with pytest.raises(BackendError, match=r'register: name: expected letters.*as in @register\("mine"\)'):
        register(name)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("accuracy", "great"), ("mode", "lazy"), ("deterministic", "sure"), ("supports", True), ("workspace", 5),
    ],
)  # fmt: skip
def test_an_argument_that_cannot_be_one_is_refused_at_once(argument: str, value: Any) -> None:
    with pytest.raises(BackendError, match=rf"register\('mine'\): {argument}: expected .*, got {value!r}"):
        register("mine", **{argument: value})


def test_what_is_no_function_is_no_preparation(registered: dict[str, registry.Backend]) -> None:
    @register("mine")
    def prepare(problem: Any, weight: Any, bias: Any, threads: Any) -> Any:
        return 5

    with pytest.raises(BackendError, match=r"backend 'mine' prepared 5 where a Prepared or a function"):
        plan(Conv2dProblem.from_label("mb1ic1ih4oc1oh4kh1ph0"), np.ones((1, 1, 1, 1), "f4"), backend="mine")
