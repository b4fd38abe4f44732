"""Frame -> the compile time of each network as if it were measured alone. Pure.

All layers that a process measures share its compiled kernels, and the first layer that uses a kernel pays for it. So
the first network of a run pays for all networks. Here each network pays for what it uses. A kind of kernel is the
algorithm of a backend, for one dtype and direction. For each kind in it, a network is charged the larger of

    the sum of what its own layers spent on the kind (all that a library pays that compiles each layer by itself)
    the longest compilation of the kind in the run, whichever network had it (a network that found it compiled)

A layer that equals another one is not measured again (docs/decisions/0021); it counts with the time of that layer.
Limits: a kind may have several variants, such as one for stride 2. A network that found them compiled is charged the
longest one only.
"""

from __future__ import annotations

import pandas as pd

from .sums import KEYS

KIND = ["backend", "threads", "algorithm", "dtype", "direction"]


def compile_seconds(table: pd.DataFrame) -> pd.Series:
    """Seconds of compiling that each backend would spend on a network alone.

    Parameters
    ----------
    table : DataFrame
        From `bench.analysis.frame.frame`: all cases of the run.

    Returns
    -------
    Series
        By network, threads and backend.

    Examples
    --------
    >>> case = {"backend": "b", "threads": 1, "algorithm": "a", "dtype": "float32", "direction": "fwd", "status": "ok"}
    >>> first = case | {"network": "first", "problem": "p", "compile_s": 2.0}
    >>> second = case | {"network": "second", "problem": "q", "compile_s": 0.0}
    >>> compile_seconds(pd.DataFrame([first, second])).tolist()
    [2.0, 2.0]
    """
    ok = table[table.status == "ok"]
    ok = ok.assign(own_s=ok.groupby([*KIND, "problem"]).compile_s.transform("max"))
    own = ok.drop_duplicates(["network", *KIND, "problem"]).groupby(["network", *KIND]).own_s.sum().reset_index()
    longest = ok.groupby(KIND).compile_s.max().rename("longest_s").reset_index()
    both = own.merge(longest, on=KIND)
    charged = both.assign(charged_s=both[["own_s", "longest_s"]].max(axis=1))
    return charged.groupby([*KEYS, "backend"]).charged_s.sum()
