"""The runtime of the kernels: threads, launch, disk cache, aligned memory, and the CPU they are compiled for."""
