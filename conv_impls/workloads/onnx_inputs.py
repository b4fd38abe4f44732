"""The sizes of a model's inputs: fixed ones from the file, open ones from `--size` and `--batch`.

A dimension is open if it has no number above 0; open dimensions with the same name get the same number. Only the first
dimension of an input with four dimensions is a batch. Sizes that contradict the file or each other raise an error.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from conv_impls.workloads.layer import WorkloadError
from conv_impls.workloads.onnx_names import plain

# Placeholder for a batch that --batch sets.
ANY_BATCH = "N"
IMAGE_RANK = 4
# Sizes to try for an example, until the model accepts one: sizes of images, of lines of text, of tiles.
TRIED = (224, 64, 320, 32, 512, 48, 128, 16)
# Names of dimensions that are taken as a batch in an example; tf2onnx uses unk__ and a number.
BATCH = re.compile("^N$|^unk__|batch", re.IGNORECASE)
NUMBER = re.compile("0*[1-9][0-9]{0,9}")
# `Sizes`: sizes by input name ("" for a size given without a name). In a `Size`, None means `ANY_BATCH`.
Size = tuple[int | None, ...]
Sizes = Mapping[str, Size]


def parse(text: str) -> dict[str, Size]:
    """Parse the sizes in ``1,3,48,192`` or ``image=1,3,48,192,mask=1,48``.

    Raises
    ------
    WorkloadError
        If the text has neither form, or a size is not from 1 to 2**31 - 1.

    Examples
    --------
    >>> parse("1,3,48,192"), parse("image=N,3,48,192,mask=1,48")
    ({'': (1, 3, 48, 192)}, {'image': (None, 3, 48, 192), 'mask': (1, 48)})
    """
    found: dict[str, Size] = {}
    for part in re.split(r",(?=[^,]*=)", text) if text else []:
        # A name may contain an equals sign.
        name, _, numbers = (word.strip() for word in part.rpartition("="))
        words = [word.strip() for word in numbers.split(",")]
        size = tuple(None if word == ANY_BATCH else int(word) if NUMBER.fullmatch(word) else 0 for word in words)
        if not all(number is None or 0 < number < 2**31 for number in size):
            raise WorkloadError(f"size: expected numbers >= 1 as in 1,3,48,192 or name=1,3,48,192, got {text!r}")
        if None in size[1:] or (None in size and len(size) != IMAGE_RANK):
            raise WorkloadError(
                f"size: expected {ANY_BATCH}, the batch that --batch sets, only as the first of four, got {text!r}"
            )
        if name in found or (found and "" in (name, *found)):
            raise WorkloadError(f"size: expected one size per input, each with the name of its input, got {text!r}")
        found[name] = size
    return found


class Inputs:
    """The inputs of a graph that a caller must provide, by name.

    Parameters
    ----------
    graph : onnx.GraphProto
        Its inputs are modified. Inputs that are weights must have been removed.
    sizes : Sizes
        As returned by `parse`.

    Raises
    ------
    WorkloadError
        If a size matches no input, or has another number of dimensions than its input.
    """

    def __init__(self, graph: Any, sizes: Sizes) -> None:
        tensors = {value.name: value.type.tensor_type for value in graph.input if value.type.HasField("tensor_type")}
        self._given: dict[str, Size] = {}
        for name, size in sizes.items():
            found = self._find(name, size, tensors)
            if not tensors[found].HasField("shape"):
                for _ in size:
                    tensors[found].shape.dim.add()
            if len(size) != len(tensors[found].shape.dim):
                shown = f"{len(tensors[found].shape.dim)} numbers for {_shown(found, tensors)}"
                raise WorkloadError(f"size: expected {shown}, got {_text(size)}")
            self._given[found] = size
        self._dims = {name: tensor.shape.dim for name, tensor in tensors.items()}
        for dims in self._dims.values():
            for dim in dims:
                if dim.HasField("dim_value") and dim.dim_value <= 0:
                    dim.ClearField("dim_value")
        self._images = [name for name, dims in self._dims.items() if len(dims) == IMAGE_RANK]
        self._words = {name: [_word(dims, dim) for dim in dims] for name, dims in self._dims.items()}
        self._numbers: dict[str, tuple[int, str]] = {}

    def fix(self, batch: int | None) -> tuple[int, int]:
        """Set sizes and batch; return (new, old) batch if the file fixes the batch, to scale the layers later.

        Raises
        ------
        WorkloadError
            If a size contradicts the file, another size or the batch, or if no input has a batch dimension.
        """
        firsts = [self._dims[name][0] for name in self._images]
        fixed = {dim.dim_value for dim in firsts if dim.HasField("dim_value")}
        scaled = batch is not None and all(dim.HasField("dim_value") for dim in firsts)
        for name, size in self._given.items():
            self._check_batch(name, size, batch)
            for place, number in enumerate(size):
                dim = self._dims[name][place]
                if number is None or (place == 0 and scaled and name in self._images):
                    continue
                if dim.HasField("dim_value") and dim.dim_value != number:
                    raise WorkloadError(
                        f"size: expected {dim.dim_value}, which the model fixes, as dimension {place} of input "
                        f"{plain(name)!r}, got {number}"
                    )
                self._put(name, place, number)
        for name in self._images:
            if not self._dims[name][0].HasField("dim_value"):
                known, _ = self._numbers.get(self._words[name][0], (1, ""))
                self._put(name, 0, batch or known)
        for name, dims in self._dims.items():
            for place, dim in enumerate(dims):
                if not dim.HasField("dim_value") and self._words[name][place] in self._numbers:
                    dim.dim_value = self._numbers[self._words[name][place]][0]
        if not scaled or batch is None:
            return 1, 1
        if len(fixed) != 1 and all(self._dims.values()):
            why = f"has a fixed batch that {batch} cannot replace; export it with that batch"
            if not fixed:
                why = f"has no input of four dimensions, which would start with the batch; omit {batch}"
            raise WorkloadError(f"batch: this model {why}")
        # If the rank of an input is not known, a later error requests its size.
        return (batch, fixed.pop()) if fixed else (1, 1)

    def example(self, wanted: list[str], batch: int | None, left_out: Callable[[Sizes], float], fewest: int) -> str:
        """An example of the option that sets the sizes of these inputs, with numbers that the model accepts.

        Parameters
        ----------
        wanted : list of str
            Names of inputs.
        batch : int or None
            The batch that was passed to `fix`.
        left_out : callable
            Number of convolutions that are skipped with these sizes; infinity if the model cannot be read with them.
        fewest : int
            Number of convolutions that are skipped for any sizes.
        """
        best, least = "", float("inf")
        for number in TRIED:
            sizes = self._given | {name: self._filled(name, number, batch) for name in wanted}
            found = left_out(sizes)
            if found < least or not best:
                best, least = self._option(sizes), found
            if least <= fewest:
                break
        return best

    def _find(self, name: str, size: Size, tensors: Mapping[str, Any]) -> str:
        """The name of the input that a size belongs to."""
        if name:
            named = [known for known in tensors if known == name] or [
                known for known in tensors if plain(known) == name
            ]
        else:
            named = [k for k, t in tensors.items() if not t.HasField("shape") or len(t.shape.dim) == len(size)]
            if len(named) != 1:
                named = [k for k in named or tensors if _is_open(tensors[k])] or named
            if not named and len(tensors) == 1:
                named = list(tensors)
        if len(named) != 1:
            what = "the name of an input" if name else "name=... for one of the inputs"
            listed = ", ".join(_shown(known, tensors) for known in tensors) or "none"
            raise WorkloadError(f"size: expected {what}: {listed}; got {name or _text(size)!r}")
        return named[0]

    def _check_batch(self, name: str, size: Size, batch: int | None) -> None:
        if batch is not None and name in self._images and size[0] not in (None, batch):
            raise WorkloadError(
                f"size: {size[0]} is the batch of input {plain(name)!r}, but --batch is {batch}; omit --batch, "
                f"or let it set the batch: {self._option(self._given | {name: (None, *size[1:])})}"
            )

    def _put(self, name: str, place: int, number: int) -> None:
        """Set the number of a dimension, and record it for all dimensions of the same name."""
        word = self._words[name][place]
        before, where = self._numbers.setdefault(word, (number, name)) if word else (number, name)
        if before != number:
            raise WorkloadError(
                f"size: expected one number for dimension {plain(word)!r}, got {before} in input {plain(where)!r} and "
                f"{number} in input {plain(name)!r}"
            )
        self._dims[name][place].dim_value = number

    def _filled(self, name: str, number: int, batch: int | None) -> Size:
        """A size for an input with its open dimensions filled; the batch is not filled with ``number``."""
        dims = self._dims[name]
        if not dims:
            # Even the number of dimensions is unknown; most models take an RGB image.
            return None if batch else 1, 3, number, number
        size = [dim.dim_value or (1 if BATCH.search(_word(dims, dim)) else number) for dim in dims]
        return (None, *size[1:]) if name in self._images and batch is not None else tuple(size)

    def _option(self, sizes: Sizes) -> str:
        """The option, quoted for a shell; without a name if none is needed."""
        alone = len(sizes) == 1 and len(self._dims) == 1
        words = [_text(size) if alone else f"{plain(name)}={_text(size)}" for name, size in sizes.items()]
        return f"--size {shlex.quote(','.join(words))}"


def _word(dims: Any, dim: Any) -> str:
    """The name of an open dimension, or "". A name that occurs twice in one input is not trusted and gives ""."""
    word = dim.dim_param if dim.dim_param != "None" and any(map(str.isalnum, dim.dim_param)) else ""
    return word if [known.dim_param for known in dims].count(word) == 1 else ""


def _is_open(tensor: Any) -> bool:
    return not tensor.HasField("shape") or any(dim.dim_value <= 0 for dim in tensor.shape.dim)


def _text(size: Size) -> str:
    return ",".join(ANY_BATCH if number is None else str(number) for number in size)


def _shown(name: str, tensors: Mapping[str, Any]) -> str:
    dims = [str(d.dim_value) if d.dim_value > 0 else plain(d.dim_param) or "?" for d in tensors[name].shape.dim]
    return f"{plain(name)} ({','.join(dims)})"
