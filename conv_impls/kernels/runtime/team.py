"""`Team`: workers that live as long as the process, and blocks of memory for the jobs in flight.

Idea
    The code of the threads is compiled (`conv_impls.kernels.runtime.protocol`). This file is the Python part: it starts
    native threads when they are first needed, and gives each call a block from a pool.
Source
    Decision 0009.
Limits
    Linux; the system may limit the number of workers.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from typing import Any

from numpy.typing import NDArray

from conv_impls.kernels.runtime.compile import c_address, start_thread
from conv_impls.kernels.runtime.memory import immortal
from conv_impls.kernels.runtime.protocol import LINE, MOST_WORKERS, TICKETS, serve, together


class Team:
    """Workers, started by the first call that needs them, and blocks for jobs in flight.

    Parameters
    ----------
    most : int
        Maximum number of workers.
    cores : int
        Number of cores a call may use; 0 reads the affinity of the calling thread.
    """

    def __init__(self, most: int = MOST_WORKERS, cores: int = 0) -> None:
        # The last box has no worker: it holds the shared words.
        self._boxes = immortal(MOST_WORKERS + 1, LINE)
        self._at, self._most, self._cores = int(self._boxes.ctypes.data), most, cores
        # A signal handler may call while the thread that it interrupts starts workers.
        self._lock, self._started = threading.RLock(), 0
        # Addresses of free blocks, by number of seats.
        self._blocks = defaultdict[int, deque[int]](deque)

    def start(self, workers: int) -> None:
        """Start workers until there are at least this many, or as many as the system allows.

        Workers are native threads, unknown to Python. They never wait for the interpreter's lock, which a thread may
        never get during interpreter exit. They are not greenlets if gevent has replaced Python's threads.
        """
        address = c_address(serve)
        with self._lock:
            while self._started < min(workers, self._most):
                if not start_thread(address, self._at):
                    # Do not try again at every call.
                    self._most = self._started
                    break
                self._started += 1

    def alone(self, x: NDArray[Any], y: NDArray[Any], table: int) -> None:
        """Run the job of this table on the calling thread."""
        together(self._at, 1, 0, 1, x, y, table)

    def call(self, seats: int, x: NDArray[Any], y: NDArray[Any], table: int) -> None:
        """Run the job of this table on at most ``seats`` threads, including the caller."""
        if self._started < min(seats - 1, self._most):
            self.start(seats - 1)
        blocks = self._blocks[seats]
        try:
            block = blocks.pop()
        except IndexError:
            block = int(immortal(TICKETS // LINE + seats, LINE).ctypes.data)
        try:
            together(self._at, self._cores, block, seats, x, y, table)
        finally:
            blocks.append(block)
