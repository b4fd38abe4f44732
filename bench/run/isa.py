"""Environment variables that limit compilers and libraries to an older instruction set than the machine's.

Most users' machines have AVX2 only; a comparison limited to AVX2 shows the times of such machines. Limits: libraries
without such a setting are left out.
"""

from __future__ import annotations

from conv_impls.kernels.runtime import target

from ..peers import PEERS

ISAS = {
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NUMBA_CPU_NAME": "haswell",
    }
}
# Peers that ignore these variables.
UNHELD = tuple(name for name, peer in PEERS.items() if not peer.obeys_isa)


def isa_variables(isa: str) -> dict[str, str]:
    """The variables for one of `ISAS`; none for an empty name."""
    if not isa:
        return {}
    beyond = ("avx512", "amx", "avxvnni", "avx10")
    flags = target.features().items()
    allowed = ",".join(("+" if on and not name.startswith(beyond) else "-") + name for name, on in flags)
    return ISAS[isa] | {"NUMBA_CPU_FEATURES": allowed}
