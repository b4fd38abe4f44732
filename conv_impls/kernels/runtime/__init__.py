"""What runs kernels: threads, start, disk cache, aligned memory, and the CPU they are compiled for."""
