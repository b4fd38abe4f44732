"""Work stealing among the threads of a team: each runs its own parts first, then steals parts that nobody began.

Idea
    A worker is a native thread inside one compiled function, with its own box. A call writes an offer of its job into
    the boxes of idle workers, and works on the job too. Each thread of a job has a seat, and each seat owns a share of
    the parts. A thread usually gets the same share at every call, so a core finds its part of the weights in its
    caches. The share is a ticket, one 64-bit word

        epoch << 28 | end << 14 | next

    The owner claims the next part by one compare-and-swap. Other threads, with no parts left, claim the last part. The
    epoch proves that the part belongs to this phase of this job. Another word counts the parts that are done. The
    caller waits only for parts that were begun. If a worker does not come, the caller does its parts and withdraws the
    offer. A job cannot end while a claimed part is open, so its operands stay valid.
Source
    Blumofe & Leiserson 1999, doi:10.1145/324133.324234 (work stealing); futex(2). Decision 0009: spin time of a waiting
    thread, and experiments. An exhaustive search of the interleavings of an earlier version: each part runs once.
Limits
    Linux on x86-64 and 64-bit Arm (`conv_impls.kernels.runtime.atomics`). 2^14 - 1 parts a phase; epochs last for 2^35
    phases of one block. The caller wakes sleeping workers one by one, 8 to 15 us each in a virtual machine.
    Workers keep the nice value, scheduling class and control group of the thread whose call started them.
"""

from __future__ import annotations

from numba import int64

from conv_impls.kernels.runtime.atomics import (
    add,
    block_signals,
    cores,
    follow,
    keep_off,
    load,
    nanoseconds,
    pause,
    sleep,
    store,
    swap_if,
    thread_id,
    wake,
)
from conv_impls.kernels.runtime.compile import PURE, entry, helper, routine
from conv_impls.kernels.runtime.operands import KERNELS, PARTS, PHASES, TOOK
from conv_impls.kernels.runtime.table import address, fill, row_of, run_alone, run_part, word

# A waiting thread spins this long, then sleeps in the kernel.
SPIN_NS = 100_000
# Sleeping workers are woken if the job's wall time x threads is above the smaller of ROUSE_NS and RETURNS times the
# recent wake-up latency: 6 to 12 us for each worker on Zen 5, 37 us in a virtual machine on Zen 3.
ROUSE_NS, RETURNS = 150_000, 3
# Each call that wakes nobody reduces the stored wake-up latency by 1/AGE.
AGE = 64
# A worker that slept longer than this is woken on another core than the caller's.
LONG_NS = 3_000_000
# Minimum time of a part: a short job gets fewer parts.
PART_NS = 25_000
# Loads of a word between two reads of the clock.
LOOKS = 64
# Bits of the part numbers in a ticket.
BITS = 14
MOST_PARTS = (1 << BITS) - 1
# Bytes between words of different threads: two cache lines, because cores fetch lines in pairs.
LINE = 128
# Offsets of the words of a box, in bytes; the epochs are those of the job's first and last phase.
STATE, JOB, SEAT, SEATS, FIRST_EPOCH, LAST_EPOCH, THREAD, SINCE, CALLER, CALLED = range(0, 80, 8)
# States of a box, in order; each change except the last two is a compare-and-swap. No worker has it; its worker polls
# for offers (from NOBODYS, BUSY, or a withdrawn offer); it sleeps (from IDLE); a caller writes the box (from IDLE or
# ASLEEP); the box holds an offer (from RESERVED, by the caller); its worker works (from OFFERED, until IDLE again).
NOBODYS, IDLE, ASLEEP, RESERVED, OFFERED, BUSY = range(6)
# Offsets of the shared words, after the last box: number of boxes with a worker, end time of the last job, and recent
# wake-up latency of a worker (smoothed).
COUNT, ENDED, LATE = 0, 64, 72
# Offsets of the words of a job's block; a ticket for each seat follows.
DONE, WAITING, TABLE, OF_PHASE, TICKETS = 0, 8, LINE, LINE + 8, 2 * LINE
# Maximum number of workers.
MOST_WORKERS = 1024


@helper
def _spun(since):
    """Whether a thread that waits since this time should sleep."""
    return nanoseconds() - since > SPIN_NS


@helper
def _rouses(took_ns, late_ns, idle_ns):
    """Whether to wake workers: from the job's time, their wake-up latency, and the idle time since the last job."""
    # If calls follow each other closely, workers stay awake for the next one.
    return took_ns == 0 or idle_ns < SPIN_NS or took_ns > min(ROUSE_NS, RETURNS * late_ns or ROUSE_NS)


@helper
def _claim(ticket_at, owner, first, last):
    """Claim (epoch, part) of a ticket; part is -1 if none is left, epoch is -1 if the ticket is of another job."""
    while True:
        ticket = load(ticket_at)
        epoch, end, part = ticket >> 2 * BITS, ticket >> BITS & MOST_PARTS, ticket & MOST_PARTS
        if epoch < first or epoch > last:
            return -1, -1
        if part >= end:
            return epoch, -1
        if swap_if(ticket_at, ticket, ticket + 1 if owner else ticket - (1 << BITS)):
            return epoch, part if owner else end - 1


@helper
def _help(block, seat, seats, first, last):
    """Run parts of the job of epochs ``first`` to ``last``, from this seat, until none is left.

    Spins for the next phase until `_spun`, then returns. The caller offers the next phase to the worker again.
    """
    tries, epoch = 0, first
    since, looks = 0, 0
    while tries < seats:
        owner = (seat + tries) % seats
        found, part = _claim(block + TICKETS + owner * LINE, tries == 0, first, last)
        if part >= 0:
            table, parts = load(block + TABLE), load(block + OF_PHASE)
            run_part(load(word(table, KERNELS + found - first)), part, parts, row_of(table, seat))
            if add(block + DONE, 1) + 1 == parts and load(block + WAITING):
                wake(block + DONE)
            # Own parts come first, also if they are handed out after the stolen part.
            tries, epoch, since = 0, found, 0
        elif found < 0:
            return
        else:
            tries += 1
            epoch = max(epoch, found)
            if tries == seats and epoch < last:
                # The next phase begins when all parts of this one are done.
                pause()
                looks += 1
                since, tries = since or nanoseconds(), 0
                if looks % LOOKS == 0 and _spun(since):
                    return


@routine
def serve(boxes):
    """Main loop of a worker: take a box, wait for offers and run them."""
    block_signals()
    # More workers than boxes are possible only after an interrupt between the start of a thread and its count.
    mine = add(boxes + MOST_WORKERS * LINE + COUNT, 1)
    box = boxes + min(mine, MOST_WORKERS - 1) * LINE
    store(box + THREAD, thread_id())
    swap_if(box + STATE, NOBODYS, IDLE)
    since, looks, slept, rested = nanoseconds(), 0, False, False
    while mine < MOST_WORKERS:
        state = load(box + STATE)
        if slept and state != ASLEEP and state != RESERVED:
            # `keep_off` may have restricted this worker to some of the caller's cores.
            follow(load(box + CALLER))
            if rested:
                late, known = nanoseconds() - load(box + CALLED), load(boxes + MOST_WORKERS * LINE + LATE)
                # Limit the change to a quarter: one wake-up may be delayed, or the worker had only begun to sleep.
                late = max(min(late, known + known // 4), known - known // 4) if known else late
                store(boxes + MOST_WORKERS * LINE + LATE, late)
            slept = rested = False
        elif state == OFFERED:
            if swap_if(box + STATE, OFFERED, BUSY):
                epochs = load(box + FIRST_EPOCH), load(box + LAST_EPOCH)
                _help(load(box + JOB), load(box + SEAT), load(box + SEATS), *epochs)
                store(box + STATE, IDLE)
            since, looks = nanoseconds(), 0
        elif state == ASLEEP:
            sleep(box + STATE, ASLEEP)
            slept = rested = True
            since, looks = nanoseconds(), 0
        else:
            pause()
            looks += 1
            if looks % LOOKS == 0 and _spun(since):
                store(box + SINCE, nanoseconds())
                if swap_if(box + STATE, IDLE, ASLEEP):
                    slept = True


@helper
def _publish(box, state):
    """Publish the offer in a reserved box, whose state was ``state``, to its worker."""
    if state == ASLEEP:
        store(box + CALLER, thread_id())
        store(box + CALLED, nanoseconds())
        if load(box + CALLED) - load(box + SINCE) > LONG_NS:
            # In a virtual machine an idle core counts as taken, and the worker would wake on the caller's core: after
            # 10 ms a 3x3 layer took 3.1 ms on two threads and 2.9 on one; with `keep_off` it takes 2.0. After shorter
            # sleeps the scheduler chooses: moving the worker displaced threads of other libraries.
            keep_off(load(box + THREAD))
    store(box + STATE, OFFERED)
    if state == ASLEEP:
        wake(box + STATE)


@helper
def _offer(boxes, workers, state, block, place, epochs):
    """Offer the job to workers in this state, for ``place`` = (free seat, seats); returns the next free seat."""
    seat, seats = place
    for worker in range(workers):
        if seat >= seats:
            break
        box = boxes + worker * LINE
        if load(box + STATE) == state and swap_if(box + STATE, state, RESERVED):
            store(box + JOB, block)
            store(box + SEAT, seat)
            store(box + SEATS, seats)
            store(box + FIRST_EPOCH, epochs[0])
            store(box + LAST_EPOCH, epochs[1])
            _publish(box, state)
            seat += 1
    return seat


@helper
def _call_back(boxes, workers, block, last):
    """Offer the next phase to workers that stopped waiting for it, each with its old seat."""
    for worker in range(workers):
        box = boxes + worker * LINE
        state = load(box + STATE)
        mine = load(box + JOB) == block and load(box + LAST_EPOCH) == last
        if mine and state in (IDLE, ASLEEP) and swap_if(box + STATE, state, RESERVED):
            # Another call may have used the worker and its box in between.
            if load(box + JOB) == block and load(box + LAST_EPOCH) == last:
                _publish(box, state)
            else:
                store(box + STATE, state)


@helper
def _begin(block, epoch, parts, seats):
    """Hand out the parts of a phase."""
    store(block + DONE, 0)
    store(block + OF_PHASE, parts)
    # The caller's ticket last: otherwise the first worker would steal the caller's parts before it has its own.
    for seat in range(seats - 1, -1, -1):
        share = (seat + 1) * parts // seats << BITS | seat * parts // seats
        store(block + TICKETS + seat * LINE, epoch << 2 * BITS | share)


@helper
def _wait(block, parts):
    """Wait until all parts of the phase are done; other threads may still run some."""
    since, looks = nanoseconds(), 0
    while load(block + DONE) < parts:
        pause()
        looks += 1
        if looks % LOOKS == 0 and _spun(since):
            # The thread that runs the last part may need this core.
            store(block + WAITING, 1)
            done = load(block + DONE)
            if done < parts:
                sleep(block + DONE, done)
            store(block + WAITING, 0)


@entry(nogil=True, **PURE)
def together(boxes, known_cores, block, seats, x, y, table):
    """Run the job of a table (`conv_impls.kernels.runtime.operands`) on at most ``seats`` threads.

    With ``known_cores`` 0, the number of cores is read from the affinity.
    """
    began, took_ns = nanoseconds(), load(word(table, TOOK))
    # Reading the affinity of the calling thread takes a third of a microsecond.
    seats = min(seats, known_cores or cores())
    if seats <= 1:
        run_alone(table, address(x), address(y))
        return
    fill(table, seats, address(x), address(y))
    store(block + TABLE, table)
    parts, phases = load(word(table, PARTS)), load(word(table, PHASES))
    if took_ns:
        # The same number for each seat, so that all end at the same time.
        parts = min(parts, max(1, took_ns // (PART_NS * seats)) * seats)
    first = (load(block + TICKETS) >> 2 * BITS) + 1
    last = first + phases - 1
    shared, taken = boxes + MOST_WORKERS * LINE, int64(1)
    workers = min(load(shared + COUNT), MOST_WORKERS)
    for epoch in range(first, last + 1):
        _begin(block, epoch, parts, seats)
        if epoch == first:
            taken = _offer(boxes, workers, int64(IDLE), block, (taken, seats), (first, last))
            late_ns = load(shared + LATE)
            # The latencies add up: the caller wakes the workers one by one.
            if _rouses(took_ns, late_ns * (seats - taken), began - load(shared + ENDED)):
                taken = _offer(boxes, workers, int64(ASLEEP), block, (taken, seats), (first, last))
            else:
                # Let an old measurement decay: it may have been an outlier.
                store(shared + LATE, late_ns - late_ns // AGE)
        else:
            _call_back(boxes, workers, block, last)
        _help(block, int64(0), seats, first, epoch)
        _wait(block, parts)
    # Withdraw offers that no worker took. This may withdraw an offer that another call made to the same worker in
    # between; that call then runs without this worker.
    for worker in range(workers):
        box = boxes + worker * LINE
        if load(box + STATE) == OFFERED and load(box + JOB) == block:
            swap_if(box + STATE, OFFERED, IDLE)
    ended = nanoseconds()
    # Keep the minimum: a call after a pause has cold caches, and more threads do not help against that.
    took = max(1, (ended - began) * taken)
    if took_ns == 0 or took < took_ns:
        store(word(table, TOOK), took)
    store(shared + ENDED, ended)
