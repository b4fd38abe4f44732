"""What threads of a team do for a job: each begins with its own parts, then takes from others what nobody began.

Idea
    A worker is a native thread inside one compiled function, with a box of its own. A call offers its job to idle
    workers by their boxes and works like everybody else. Each thread of a job has a seat, and each seat owns a share of
    the parts of the work, usually the same thread the same share at every call, so that a core finds its part of the
    weights in its caches. The share is a ticket, one 64-bit word

        epoch << 28 | end << 14 | next

    of which the owner claims the next part and others, with none left, the last one, by one compare-and-swap; the epoch
    proves that the part belongs to this phase of this job. Another word counts the parts that are done. The caller
    waits for parts that somebody began, never for a worker who did not come: it does those parts itself and takes the
    offer back. A job cannot end while a claimed part is open, so all that it reads stays in place.
Source
    Blumofe & Leiserson 1999, doi:10.1145/324133.324234 (work stealing); futex(2). Decision 0009 says how long a waiting
    thread spins, and what was tried; a search of all interleavings of an earlier version found each part run once.
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

# A waiting thread spins so long, and then sleeps in the kernel.
SPIN_NS = 100_000
# Sleeping workers are woken for jobs that take longer, on all threads together, than the lesser of this and RETURNS
# times what waking them takes: lately each took 6 to 12 us on Zen 5, 37 us in a virtual machine on Zen 3.
ROUSE_NS, RETURNS = 150_000, 3
# Of that time, each call that wakes nobody takes off one part in so many.
AGE = 64
# A worker that slept longer is woken on another core than the caller's.
LONG_NS = 3_000_000
# Parts take at least so long, where a job could have more of them.
PART_NS = 25_000
# Looks at a word between two looks at the clock.
LOOKS = 64
# Bits of a ticket's numbers.
BITS = 14
MOST_PARTS = (1 << BITS) - 1
# Bytes between words of different threads: two lines, because cores fetch pairs.
LINE = 128
# Places of the words of a box, in bytes; the epochs are those of the job's first and last phase.
STATE, JOB, SEAT, SEATS, FIRST_EPOCH, LAST_EPOCH, THREAD, SINCE, CALLER, CALLED = range(0, 80, 8)
# The state of a box, each change but the last two a compare-and-swap: no worker has it; its worker looks for offers
# (from NOBODYS, BUSY, or an offer taken back); it sleeps (from IDLE); a caller writes the box (from IDLE or ASLEEP);
# the box holds an offer (from RESERVED, by the caller); its worker works (from OFFERED, until it is IDLE again).
NOBODYS, IDLE, ASLEEP, RESERVED, OFFERED, BUSY = range(6)
# Places of the words that all share, behind the last box: boxes that have a worker, when the last job ended, and about
# how long the last worker that was woken took.
COUNT, ENDED, LATE = 0, 64, 72
# Places of the words of a job's block; a ticket for each seat follows.
DONE, WAITING, TABLE, OF_PHASE, TICKETS = 0, 8, LINE, LINE + 8, 2 * LINE
# No machine has more workers than this.
MOST_WORKERS = 1024


@helper
def _spun(since):
    """Whether a thread that waits since then is to sleep."""
    return nanoseconds() - since > SPIN_NS


@helper
def _rouses(took_ns, late_ns, idle_ns):
    """Whether a job that takes so long wakes workers who will be so late, so long after the last job."""
    # Where calls follow each other closely, workers stay awake for the next.
    return took_ns == 0 or idle_ns < SPIN_NS or took_ns > min(ROUSE_NS, RETURNS * late_ns or ROUSE_NS)


@helper
def _claim(ticket_at, owner, first, last):
    """(epoch, part) of a ticket; the part is -1 where none is left, the epoch where the ticket is of another job."""
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
    """Do parts of the job of epochs ``first`` to ``last``, from this seat, until none is left.

    Waits for the next phase as `_spun` says and then gives up; the caller calls a worker back.
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
            # Its own come first, also when they are handed out later than those it has just helped with.
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
    """A worker's life: take a box, wait for offers and help."""
    block_signals()
    # More than there are boxes only after an interrupt between the start of a thread and its count.
    mine = add(boxes + MOST_WORKERS * LINE + COUNT, 1)
    box = boxes + min(mine, MOST_WORKERS - 1) * LINE
    store(box + THREAD, thread_id())
    swap_if(box + STATE, NOBODYS, IDLE)
    since, looks, slept, rested = nanoseconds(), 0, False, False
    while mine < MOST_WORKERS:
        state = load(box + STATE)
        if slept and state != ASLEEP and state != RESERVED:
            # It may have been sent to some of them.
            follow(load(box + CALLER))
            if rested:
                late, known = nanoseconds() - load(box + CALLED), load(boxes + MOST_WORKERS * LINE + LATE)
                # One that was held up changes little, and so does one that had only begun to sleep.
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
    """Let the worker of a reserved box, which was in this state, see its offer."""
    if state == ASLEEP:
        store(box + CALLER, thread_id())
        store(box + CALLED, nanoseconds())
        if load(box + CALLED) - load(box + SINCE) > LONG_NS:
            # In a virtual machine a core that rests counts as taken, and the worker would wake on the caller's: after
            # 10 ms a 3x3 layer took 3.1 ms on two threads, 2.9 on one, and takes 2.0 this way. After shorter sleeps the
            # scheduler chooses: moving the worker displaced threads of other libraries.
            keep_off(load(box + THREAD))
    store(box + STATE, OFFERED)
    if state == ASLEEP:
        wake(box + STATE)


@helper
def _offer(boxes, workers, state, block, place, epochs):
    """Offer the job to workers in this state, for ``place`` = (free seat, seats); returns the first still free."""
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
    """Offer the next phase to workers that waited for it too long, each at its seat."""
    for worker in range(workers):
        box = boxes + worker * LINE
        state = load(box + STATE)
        mine = load(box + JOB) == block and load(box + LAST_EPOCH) == last
        if mine and state in (IDLE, ASLEEP) and swap_if(box + STATE, state, RESERVED):
            # Another call may have had the worker, and its box, in between.
            if load(box + JOB) == block and load(box + LAST_EPOCH) == last:
                _publish(box, state)
            else:
                store(box + STATE, state)


@helper
def _begin(block, epoch, parts, seats):
    """Hand out the parts of a phase."""
    store(block + DONE, 0)
    store(block + OF_PHASE, parts)
    # The caller's last: else the first worker would take the caller's parts before it has its own.
    for seat in range(seats - 1, -1, -1):
        share = (seat + 1) * parts // seats << BITS | seat * parts // seats
        store(block + TICKETS + seat * LINE, epoch << 2 * BITS | share)


@helper
def _wait(block, parts):
    """Until all parts of the phase are done, which others may be at."""
    since, looks = nanoseconds(), 0
    while load(block + DONE) < parts:
        pause()
        looks += 1
        if looks % LOOKS == 0 and _spun(since):
            # Whoever has the last part may need this core for it.
            store(block + WAITING, 1)
            done = load(block + DONE)
            if done < parts:
                sleep(block + DONE, done)
            store(block + WAITING, 0)


@entry(nogil=True, **PURE)
def together(boxes, known_cores, block, seats, x, y, table):
    """Run the job of a table (`conv_impls.kernels.runtime.operands`) on at most so many threads; 0 cores asks."""
    began, took_ns = nanoseconds(), load(word(table, TOOK))
    # The cores of the calling thread's affinity at this moment: a third of a microsecond.
    seats = min(seats, known_cores or cores())
    if seats <= 1:
        run_alone(table, address(x), address(y))
        return
    fill(table, seats, address(x), address(y))
    store(block + TABLE, table)
    parts, phases = load(word(table, PARTS)), load(word(table, PHASES))
    if took_ns:
        # As many for each seat, so that all end at the same time.
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
            # The caller wakes them one by one.
            if _rouses(took_ns, late_ns * (seats - taken), began - load(shared + ENDED)):
                taken = _offer(boxes, workers, int64(ASLEEP), block, (taken, seats), (first, last))
            else:
                # What was measured once, at a bad moment perhaps, does not hold for ever.
                store(shared + LATE, late_ns - late_ns // AGE)
        else:
            _call_back(boxes, workers, block, last)
        _help(block, int64(0), seats, first, epoch)
        _wait(block, parts)
    # A worker that has not begun is not waited for. This may take back the offer of another call, which came to the
    # same worker in between; that call then works without it.
    for worker in range(workers):
        box = boxes + worker * LINE
        if load(box + STATE) == OFFERED and load(box + JOB) == block:
            swap_if(box + STATE, OFFERED, IDLE)
    ended = nanoseconds()
    # The least, because a call after a pause finds the caches cold, which more threads do not mend.
    took = max(1, (ended - began) * taken)
    if took_ns == 0 or took < took_ns:
        store(word(table, TOOK), took)
    store(shared + ENDED, ended)
