"""A recorded step: a list of kernels with their arguments, walked in C.

``Program`` is made from instructions, each a kernel's function pointer and a filled argument
struct. Running it touches no Python object and allocates nothing. Several threads walk the same
list, each doing its share of the kernels that are worth sharing, with a barrier where one kernel
needs what another thread's share of an earlier one has written (``recording/planning.py``
decides both).
"""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memcmp, memcpy
from numpy cimport ndarray

from minidl._kernels.arguments cimport kernel_fn
from minidl._kernels.hooks cimport change_count, is_recording

import os

import numpy

cnp.import_array()

cdef extern from "Python.h":
    PyObject *PyDict_GetItem(object holder, object key)
    PyObject *PyList_GET_ITEM(object holder, Py_ssize_t place)
    PyObject *PyCell_GET(object cell)

cdef extern from "pythread.h" nogil:
    ctypedef void *PyThread_type_lock
    enum: NOWAIT_LOCK
    unsigned long PyThread_get_thread_ident()
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int mode)
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interrupt)
    void PyThread_release_lock(PyThread_type_lock lock)

cdef extern from "team.h" nogil:
    ctypedef void (*work_fn)(void *what, int member) noexcept
    enum: MOST_THREADS
    int64_t nanoseconds()
    void expect(const void *p)
    int hire(int threads)
    bint take_team()
    void leave_team()
    void team_work(work_fn work, void *what, int threads)
    void barrier(int threads, int64_t *passed)
    void forget_team()
    void keep_first(int64_t *p, int64_t value)
    int64_t read_first(int64_t *p)

include "executor/walk.pxi"
include "executor/ways.pxi"

cdef int FORKS = 0           # locks taken before a fork do not hold in the child
cdef long long PATIENCE = 50000    # microseconds between two looks at Ctrl-C of who waits


# --- one run at a time -----------------------------------------------------------------------

cdef class Waiter:
    """A thread that waits for a lock."""

    cdef unsigned long thread
    cdef PyThread_type_lock bell     # held; whoever hands the lock to this thread releases it
    cdef bint served                 # whether the lock is this thread's
    cdef bint away                   # whether it runs signal handlers, and can be handed nothing

    def __cinit__(self):
        self.thread = PyThread_get_thread_ident()
        self.bell = PyThread_allocate_lock()
        if self.bell == NULL:
            raise MemoryError
        PyThread_acquire_lock(self.bell, NOWAIT_LOCK)

    def __dealloc__(self):
        if self.bell != NULL:
            if not self.served:
                PyThread_release_lock(self.bell)
            PyThread_free_lock(self.bell)


cdef class ProgramLock:
    """One run at a time, of all programs that share it, in the order in which threads come.

    The programs of a step share a lock, as they change the same parameters; while one of them is
    recorded, none of them runs. The GIL protects the fields of the lock itself.
    """

    cdef unsigned long holder        # the thread that has it; 0: nobody
    cdef readonly list waiting
    cdef int forks

    def __cinit__(self):
        self.holder, self.waiting, self.forks = 0, [], FORKS

    cpdef int acquire(self) except -1:
        """Have the lock, after all who came before.

        Raises what a signal handler raises meanwhile, and RuntimeError if this thread has it.
        """
        cdef unsigned long me = PyThread_get_thread_ident()
        self.outlive_fork(me)
        if self.holder == 0:
            self.holder = me
            return 0
        if self.holder == me:
            raise RuntimeError(
                "this recorded step is under way in this very thread, so that it cannot be called: "
                "by a signal handler, a schedule or a finalizer; let that note what it wants, "
                "and call the step later"
            )
        return self.wait(Waiter())

    cdef int wait(self, Waiter waiter) except -1:
        self.waiting.append(waiter)
        while True:
            with nogil:
                PyThread_acquire_lock_timed(waiter.bell, PATIENCE, 0)
            if waiter.served:
                return 0
            waiter.away = True
            try:
                PyErr_CheckSignals()
            except BaseException:
                self.drop(waiter)
                raise
            waiter.away = False
            if self.holder == 0:
                self.drop(waiter)
                self.holder = waiter.thread
                return 0

    cpdef int release(self) except -1:
        """Hand the lock to the first of those that wait."""
        cdef Waiter waiter
        self.outlive_fork(PyThread_get_thread_ident())
        self.holder = 0
        for waiter in self.waiting:
            if not waiter.away:
                self.drop(waiter)
                self.holder, waiter.served = waiter.thread, True
                PyThread_release_lock(waiter.bell)
                break
        return 0

    cdef int drop(self, Waiter waiter) except -1:
        if waiter in self.waiting:
            self.waiting.remove(waiter)
        return 0

    cdef int outlive_fork(self, unsigned long me) except -1:
        """In a forked child, forget the threads that do not live there."""
        if self.forks != FORKS:
            self.forks, self.waiting = FORKS, []
            self.holder = me if self.holder == me else 0
        return 0

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *error):
        self.release()


# --- what a program is given, and what it gives ------------------------------------------------

cdef class RowOrder:
    """An order of rows that C may walk along: all of them are rows of a data set.

    Parameters
    ----------
    order
        Whole numbers, of which a copy is kept.
    rows
        Of the data set: each number is at least 0 and less.
    """

    cdef ndarray order
    cdef readonly Py_ssize_t rows

    def __init__(self, ndarray order not None, Py_ssize_t rows):
        cdef Py_ssize_t i, count = cnp.PyArray_SIZE(order)
        cdef const Py_ssize_t *number
        if order.ndim != 1 or order.dtype.kind not in "iu":
            raise TypeError(f"an order of rows is a vector of whole numbers, not {order!r}")
        self.order, self.rows = order.astype("p"), rows
        number = <const Py_ssize_t *>cnp.PyArray_DATA(self.order)
        for i in range(count):
            if not 0 <= number[i] < rows:
                raise ValueError(f"an order of rows holds {number[i]}, but there are {rows} rows")


cdef class InputView:
    """Among what a step returns, a part of its input of this number."""

    cdef Py_ssize_t number, offset
    cdef object shape, dtype, strides

    def __init__(self, Py_ssize_t number, Py_ssize_t offset, ndarray like):
        self.number, self.offset = number, offset
        self.shape, self.dtype = (<object>like).shape, like.dtype
        self.strides = (<object>like).strides


cdef object returned(object leaf, tuple inputs, bint copy):
    """What a call returns, from a nest of tuples, lists and dicts of a program's own arrays.

    Numbers are copies always, arrays with ``copy``. Nothing in here runs Python code: a signal
    handler could call the step, which is not done yet.
    """
    cdef InputView view
    if type(leaf) is ndarray:
        return copied(leaf) if copy or (<ndarray>leaf).ndim == 0 else leaf
    if type(leaf) is tuple:
        return tuple([returned(item, inputs, copy) for item in leaf])
    if isinstance(leaf, tuple):    # a named one
        return tuple.__new__(type(leaf), [returned(item, inputs, copy) for item in leaf])
    if isinstance(leaf, list):
        return [returned(item, inputs, copy) for item in leaf]
    if isinstance(leaf, dict):
        return {key: returned(item, inputs, copy) for key, item in leaf.items()}
    if type(leaf) is InputView:
        view = leaf
        part = ndarray(view.shape, view.dtype, inputs[view.number], view.offset, view.strides)
        return copied(part) if copy else part
    return leaf


cdef object copied(ndarray x):
    """A C-contiguous copy; of few numbers that are so already, a faster one than NumPy makes."""
    cdef ndarray y
    if not cnp.PyArray_ISCARRAY_RO(x) or cnp.PyArray_NBYTES(x) > 1 << 16:
        return cnp.PyArray_NewCopy(x, cnp.NPY_CORDER)
    y = cnp.PyArray_EMPTY(x.ndim, cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
    memcpy(cnp.PyArray_DATA(y), cnp.PyArray_DATA(x), cnp.PyArray_NBYTES(x))
    return y


cdef class Program:
    """Kernels with their arguments, ready to run.

    Parameters
    ----------
    instructions
        (function, args, threads, wait, watch) each: the address of the kernel, its argument
        struct as bytes, how many threads share it, whether all wait before it, and what its
        answer means.
    inputs
        What each argument of a call must be: an array of the same dtype and shape, writeable if
        this one is, or else the same value.
    patches
        (input, instruction, slot, offset): where the address of an input goes.
    state
        Arrays to restore when a step fails.
    memory
        What the program works in, and what it returns lies in: no input of a call may.
    lasting
        Contiguous arrays that live on between steps: parameters, gradients, moments, state. No
        input of a call may lie in them, either.
    keep
        What else must live as long as the program, such as the arrays its pointers point into.
    lock
        Shared with the programs that must not run at the same time.
    """

    cdef Instruction *code
    cdef Py_ssize_t length
    cdef char *args
    cdef Stretch *state
    cdef Pointer *pointers
    cdef Span *owned                 # memory and what is lasting, neighbours as one
    cdef int states, owned_count
    cdef bint changes_inputs
    cdef list kinds, patches, keep, shadows
    cdef public ProgramLock lock
    cdef Ways ways
    cdef public bint together        # always, without trying what is faster
    cdef readonly int used           # threads of the latest run
    cdef public object result        # a nest of what a call returns: see `returned`
    cdef public bint copies          # whether a call returns copies
    cdef public list scheduled       # groups of parameters whose learning rate each call sets
    cdef public long seen            # count of changes up to which this program was checked
    cdef readonly int threads

    def __cinit__(self):
        self.code = NULL
        self.args = NULL
        self.state = NULL
        self.pointers = NULL
        self.owned = NULL
        self.seen = -1
        self.ways.way, self.ways.trial, self.ways.until_trial = TOGETHER, False, 0

    def __init__(
        self, list instructions, list inputs, list patches, list state, ndarray memory,
        list lasting, object keep, ProgramLock lock=None
    ):
        cdef Py_ssize_t i, size = sum(len(args) + 64 for _, args, *_ in instructions)
        cdef char *at
        cdef ndarray array, shadow
        self.length, self.states = len(instructions), len(state)
        self.code = <Instruction *>PyMem_Malloc((self.length + 1) * sizeof(Instruction))
        self.args = <char *>PyMem_Malloc(size + 1)
        self.state = <Stretch *>PyMem_Malloc((self.states + 1) * sizeof(Stretch))
        self.pointers = <Pointer *>PyMem_Malloc((len(patches) + 1) * sizeof(Pointer))
        self.owned = <Span *>PyMem_Malloc((len(lasting) + 1) * sizeof(Span))
        if NULL in (self.code, self.args, self.state, self.pointers, self.owned):
            raise MemoryError
        self.threads = max([threads for _, _, threads, _, _ in instructions], default=1)
        at = self.args
        for i, (function, args, threads, wait, watch) in enumerate(instructions):
            self.code[i] = Instruction(
                <kernel_fn><size_t>function, at, threads, wait, watch
            )
            memcpy(at, <char *>args, len(args))
            at += (len(args) + 63) // 64 * 64
        self.shadows = [array.copy() for array in state]
        for i in range(self.states):
            array, shadow = state[i], self.shadows[i]
            self.state[i] = Stretch(
                <char *>cnp.PyArray_DATA(array), <char *>cnp.PyArray_DATA(shadow),
                cnp.PyArray_NBYTES(array)
            )
        self.kinds, self.patches, self.keep = inputs, patches, [state, memory, lasting, keep]
        self.changes_inputs = any([isinstance(x, ndarray) and x.flags.writeable for x in inputs])
        self.own([memory, *lasting])
        self.lock = ProgramLock() if lock is None else lock
        self.scheduled = []

    cdef int own(self, list arrays) except -1:
        """Note where these arrays lie; parts of one vector become one span."""
        cdef size_t begin, nbytes
        cdef Span *last
        self.owned_count = 0
        for begin, nbytes in sorted(
            [(<size_t>cnp.PyArray_DATA(<ndarray>x), cnp.PyArray_NBYTES(<ndarray>x)) for x in arrays]
        ):
            last = self.owned + self.owned_count - 1
            if self.owned_count > 0 and begin <= <size_t>last.end:
                last.end = <char *>max(<size_t>last.end, begin + nbytes)
            elif nbytes > 0:
                self.owned[self.owned_count] = Span(<char *>begin, <char *>(begin + nbytes))
                self.owned_count += 1
        return 0

    def __dealloc__(self):
        PyMem_Free(self.code)
        PyMem_Free(self.args)
        PyMem_Free(self.state)
        PyMem_Free(self.pointers)
        PyMem_Free(self.owned)

    # --- one step -------------------------------------------------------------------------

    cdef bint fits(self, tuple inputs) except -1:
        """Whether these are the inputs this program was recorded for."""
        cdef Py_ssize_t i
        if len(inputs) != len(self.kinds):
            return False
        for i in range(len(inputs)):
            if type(self.kinds[i]) is ndarray:
                if not self.fits_array(inputs[i], self.kinds[i]):
                    return False
            elif not same_constant(inputs[i], self.kinds[i]):
                return False
        return not self.changes_inputs or self.changes_apart(inputs)

    cdef inline bint fits_array(self, object given, ndarray kind):
        cdef ndarray x
        if type(given) is not ndarray:
            return False
        x = given
        return (
            cnp.PyArray_TYPE(x) == cnp.PyArray_TYPE(kind)
            and cnp.PyArray_ISCARRAY_RO(x) and cnp.PyArray_SAMESHAPE(x, kind)
            and (cnp.PyArray_ISWRITEABLE(x) or not cnp.PyArray_ISWRITEABLE(kind))
            and not self.owns(span_of(x))
        )

    cdef int check(self, tuple inputs) except -1:
        """Raise ValueError unless kernels may use the arrays among these inputs."""
        cdef Py_ssize_t i
        cdef bint fit = len(inputs) == len(self.kinds)
        for i in range(len(self.kinds)):
            if fit and type(self.kinds[i]) is ndarray:
                fit = self.fits_array(inputs[i], self.kinds[i])
        if not fit or (self.changes_inputs and not self.changes_apart(inputs)):
            raise ValueError("these are not the inputs for which the program was recorded")
        return 0

    cdef bint owns(self, Span span) noexcept:
        """Whether any of this memory is the program's, or may be changed by it."""
        cdef int i
        for i in range(self.owned_count):
            if overlap(span, self.owned[i]):
                return True
        return False

    cdef bint changes_apart(self, tuple inputs):
        """Whether no input that is changed shares memory with another one: threads would race."""
        cdef Py_ssize_t i, j
        for i in range(len(inputs)):
            if type(inputs[i]) is ndarray and cnp.PyArray_ISWRITEABLE(self.kinds[i]):
                for j in range(len(inputs)):
                    if i != j and type(inputs[j]) is ndarray and overlap(
                        span_of(inputs[i]), span_of(inputs[j])
                    ):
                        return False
        return True

    cdef int point(self, tuple inputs) except -1:
        """Enter the addresses of the inputs into the argument structs."""
        cdef Py_ssize_t instruction, slot, offset
        cdef ndarray x
        for number, instruction, slot, offset in self.patches:
            x = inputs[number]
            (<const void **>self.code[instruction].args)[slot] = cnp.PyArray_BYTES(x) + offset
        return 0

    def replay(self, tuple inputs):
        """Run on these inputs. Returns 0 and what the step returns, or 1 + the instruction at
        which the step failed and its answer, or -1 and None if something is not as it was when
        this was recorded."""
        cdef Py_ssize_t failed
        output = self.call(inputs, &failed)
        return failed, output

    cdef object call(self, tuple inputs, Py_ssize_t *failed):
        """What ``replay`` does. What is returned is made before another call can overwrite it."""
        cdef Run run
        cdef list rates
        failed[0] = -1
        if self.seen != change_count() or not self.fits(inputs):
            return None
        self.lock.acquire()
        try:
            if self.seen != change_count():    # while this waited
                return None
            # Schedules are functions of Python. From the first rate that is set to the end of the
            # step no signal handler runs.
            rates = [(group.state["learning_rate"], group.rates(1)[0]) for group in self.scheduled]
            self.point(inputs)
            for place, rate in rates:
                place[...] = rate
            self.begin(&run)
            begin_step(&run)
            self.perform(&run)
            failed[0] = failed_at(&run)
            return answer_of(&run) if run.failed else returned(self.result, inputs, self.copies)
        finally:
            self.lock.release()

    def output(self, tuple inputs):
        """What a call on these inputs returns, or has just returned: for who has the lock."""
        return returned(self.result, inputs, self.copies)

    cdef void begin(self, Run *run) noexcept:
        """A run of one step."""
        run.code, run.length = self.code, self.length
        run.state, run.states = self.state, self.states
        run.epoch = run.go_on = False
        run.pointer_count = run.input_count = run.dial_count = run.output_count = 0
        run.first = run.done = run.deadline = run.failed = 0
        run.steps, run.rows, run.order, run.stamps = 1, 0, NULL, NULL

    cdef void perform(self, Run *run):
        """Have the run done, alone or by the team, whichever is faster."""
        cdef int i, way = ALONE
        cdef bint teamed = False
        cdef int64_t begun
        with nogil:
            run.threads = 1
            if self.threads > 1:
                way = self.choose(run)
                teamed = way == TOGETHER and take_team()
            begun = nanoseconds()
            self.used = 1
            if teamed:
                self.used = run.threads = hire(self.threads)
                team_work(walk, run, run.threads)
                leave_team()
            else:
                walk(run, 0)
            if self.learns(run) and run.failed == 0 and teamed == (way == TOGETHER):
                note(&self.ways, nanoseconds() - begun, run.done)
            if run.failed:
                for i in range(run.states):
                    memcpy(run.state[i].source, run.state[i].target, run.state[i].nbytes)

    cdef bint learns(self, const Run *run) noexcept nogil:
        """Whether there are two ways. While a run is timed, there are more barriers than usual."""
        return self.threads > 1 and not self.together and run.stamps == NULL

    cdef int choose(self, Run *run) noexcept nogil:
        """Which way to go."""
        cdef int64_t most
        cdef int way
        if not self.learns(run):
            return TOGETHER if self.together else self.ways.way
        way = choose_way(&self.ways, &most)
        run.deadline = min(run.deadline, nanoseconds() + most)
        return way

    # --- many steps -----------------------------------------------------------------------

    def steps(
        self, tuple sources, tuple targets, RowOrder order, Py_ssize_t rows, Py_ssize_t first,
        Py_ssize_t count, list dials, list outputs, double seconds
    ):
        """Steps first … first + count - 1 of an epoch, or as many as fit into so many seconds.

        Step s works on rows order[s * rows : (s + 1) * rows] of the sources, or with order None
        on the rows from s * rows on: where they are, if they are in order and the step changes no
        such memory, else copied to the targets. Of a step that fails, the targets hold them, too.
        dials are pairs (array of no dimensions, its value in every step); outputs pairs (array,
        array of as many as there are steps). Returns how many steps were made, and of the one that
        failed 1 + the instruction, or 0, and its answer.
        """
        cdef Run run
        cdef CopySpans room
        cdef int64_t deadline
        cdef Py_ssize_t made = 0, i
        cdef list in_place = []
        self.check_steps(sources, targets, order, rows, first, count)
        with self.lock:
            self.point(targets)
            self.begin(&run)
            run.epoch, run.rows, run.first = True, rows, first
            run.order = NULL if order is None else <Py_ssize_t *>cnp.PyArray_DATA(order.order)
            run.inputs, run.outputs, run.dials = room.inputs, room.outputs, room.dials
            run.pointers = self.pointers
            for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
                if order is None and self.only_read(i, source):
                    self.aim(&run, i, source, target)
                    in_place.append((source, target))
                    continue
                run.inputs[run.input_count] = stretch(source, target)
                run.inputs[run.input_count].nbytes //= rows
                run.input_count += 1
            keep_outputs(&run, outputs, first + count)
            turn_dials(&run, dials, first + count)
            deadline = nanoseconds() + <int64_t>(seconds * 1e9)
            while not run.failed and run.first < first + count and nanoseconds() < deadline:
                run.steps, run.deadline = first + count - run.first, deadline
                self.perform(&run)
                made += run.done
                run.first, run.done = run.first + run.done, 0
            if run.failed:
                for source, target in in_place:
                    target[...] = source[run.first * rows : (run.first + 1) * rows]
            return made, failed_at(&run), answer_of(&run)

    cdef int check_steps(
        self, tuple sources, tuple targets, RowOrder order, Py_ssize_t rows, Py_ssize_t first,
        Py_ssize_t count
    ) except -1:
        """Raise ValueError unless all rows of these steps are rows of the sources."""
        cdef ndarray source, target
        cdef Py_ssize_t last = (first + count) * rows
        self.check(targets)
        if len(sources) > MOST_COPIES:
            raise ValueError("an epoch has at most 16 inputs")
        if rows < 1 or first < 0 or count < 0:
            raise ValueError(f"no steps of {rows} rows: {count} from step {first} on")
        if order is not None and last > cnp.PyArray_SIZE(order.order):
            raise ValueError(f"{last} rows are more than the order has")
        for source, target in zip(sources, targets, strict=True):
            if (
                not cnp.PyArray_ISCARRAY_RO(source) or not cnp.PyArray_ISCARRAY(target)
                or cnp.PyArray_TYPE(source) != cnp.PyArray_TYPE(target)
                or source.ndim == 0 or target.ndim == 0 or target.shape[0] != rows
                or (<object>source).shape[1:] != (<object>target).shape[1:]
                or source.shape[0] < (last if order is None else order.rows)
            ):
                raise ValueError(
                    f"a data set of shape {(<object>source).shape} does not hold these steps "
                    f"of shape {(<object>target).shape}"
                )
        return 0

    cdef bint only_read(self, Py_ssize_t number, ndarray source):
        """Whether kernels may read an input in its source: in none of what the step changes."""
        return not cnp.PyArray_ISWRITEABLE(self.kinds[number]) and not self.owns(span_of(source))

    cdef int aim(self, Run *run, Py_ssize_t number, ndarray source, ndarray target) except -1:
        """Have the kernels that read an input read it in its source, step after step."""
        cdef Py_ssize_t patched, instruction, slot, offset
        for patched, instruction, slot, offset in self.patches:
            if patched == number:
                run.pointers[run.pointer_count] = Pointer(
                    <const char **>self.code[instruction].args + slot,
                    cnp.PyArray_BYTES(source) + offset, cnp.PyArray_NBYTES(target)
                )
                run.pointer_count += 1
        return 0

    def time(self, tuple inputs, ndarray stamps):
        """Run once; stamps[i] becomes the time in nanoseconds before instruction i, and the
        last one the time at the end. Returns 0 or 1 + the instruction that failed, and its
        answer."""
        cdef Run run
        if cnp.PyArray_TYPE(stamps) != cnp.NPY_INT64 or stamps.shape[0] != self.length + 1:
            raise ValueError(f"stamps must be {self.length + 1} int64")
        self.check(inputs)
        with self.lock:
            for group in self.scheduled:
                group.set_rate()
            self.point(inputs)
            self.begin(&run)
            begin_step(&run)
            run.stamps = <int64_t *>cnp.PyArray_DATA(stamps)
            run.stamps[0] = nanoseconds()
            self.perform(&run)
            return failed_at(&run), answer_of(&run)

    # --- kernel by kernel ------------------------------------------------------------------

    def prepare(self, tuple inputs):
        """Be about to run on these inputs: remember the state. Who calls this has the lock."""
        cdef Run run
        self.check(inputs)
        self.point(inputs)
        self.begin(&run)
        begin_step(&run)

    def run_one(self, Py_ssize_t index):
        """Run one instruction, on this thread; returns its answer."""
        if not 0 <= index < self.length:
            raise IndexError(f"there is no instruction {index} among {self.length}")
        return self.code[index].kernel(self.code[index].args, 0, 1)

    def restore(self):
        """Bring the state back that ``prepare`` remembered."""
        cdef int i
        for i in range(self.states):
            memcpy(self.state[i].source, self.state[i].target, self.state[i].nbytes)


cdef class Names:
    """What names meant when a step was recorded.

    ``found`` are (holder, key, value): a dict with a key, a list with an index, or a cell of a
    closure, where the key does not count.
    """

    cdef tuple holders, keys, values

    def __init__(self, list found):
        self.holders = tuple([holder for holder, _, _ in found])
        self.keys = tuple([key for _, key, _ in found])
        self.values = tuple([value for _, _, value in found])

    cpdef bint same(self) except -1:
        """Whether each of them means the same object now."""
        cdef Py_ssize_t i, place
        cdef object holder
        cdef PyObject *now
        for i in range(len(self.holders)):
            holder = self.holders[i]
            if type(holder) is dict:
                now = PyDict_GetItem(holder, self.keys[i])
            elif type(holder) is list:
                place = self.keys[i]
                now = PyList_GET_ITEM(holder, place) if place < len(<list>holder) else NULL
            else:
                now = PyCell_GET(holder)
            if now != <PyObject *><void *>self.values[i]:
                return False
        return True


cdef class Replayer:
    """What is called like a function: runs ``program`` if that was made for these inputs, and names
    mean what they did.

    Whatever else there is to do is done by ``otherwise(program, failed, answer, inputs)`` of a
    subclass, where ``failed`` and ``answer`` are what ``program.replay`` returned, or -1 and None
    if there is no program; arguments that were given by name it is first asked to put in their
    places: ``by_place(inputs, named)``.
    """

    cdef public Program program
    cdef public Names names

    def __call__(self, *inputs, **named):
        cdef Program program = self.program    # once: another thread may set another one
        cdef Names names = self.names
        cdef Py_ssize_t failed = -1
        output = None
        if named:
            inputs = self.by_place(inputs, named)
        if program is not None and not is_recording() and (names is None or names.same()):
            output = program.call(inputs, &failed)
            if failed == 0:
                return output
        return self.otherwise(program, failed, output, inputs)


cdef bint same_constant(object a, object b) except -1:
    """Whether two arguments mean the same to any function. 0.0 and -0.0 do not, though they are
    equal; and what is no plain value may differ in what its ``==`` does not look at."""
    cdef double x, y
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is float:
        x, y = a, b
        return memcmp(&x, &y, sizeof(double)) == 0
    if type(a) in (int, bool, str, bytes):
        return a == b
    if isinstance(a, numpy.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return type(a) is complex and numpy.complex128(a).tobytes() == numpy.complex128(b).tobytes()


cdef inline Span span_of(ndarray array) noexcept:
    """Where a contiguous array lies."""
    cdef char *begin = <char *>cnp.PyArray_DATA(array)
    return Span(begin, begin + cnp.PyArray_NBYTES(array))


cdef inline bint overlap(Span a, Span b) noexcept:
    return a.begin < b.end and b.begin < a.end


cdef Stretch stretch(ndarray whole, ndarray batch) noexcept:
    """From the rows of a data set to those of a batch."""
    return Stretch(
        <char *>cnp.PyArray_DATA(whole), <char *>cnp.PyArray_DATA(batch), cnp.PyArray_NBYTES(batch)
    )


cdef int keep_outputs(Run *run, list outputs, Py_ssize_t steps) except -1:
    """Have the outputs of every step kept: pairs (array of one, array with room for so many)."""
    cdef ndarray source, target
    if len(outputs) > MOST_COPIES:
        raise ValueError("an epoch has at most 16 outputs")
    for source, target in outputs:
        if (
            not cnp.PyArray_ISCARRAY_RO(source) or not cnp.PyArray_ISCARRAY(target)
            or cnp.PyArray_NBYTES(target) < steps * cnp.PyArray_NBYTES(source)
        ):
            raise ValueError("an output of an epoch must be contiguous, with room for all steps")
        run.outputs[run.output_count] = stretch(source, target)
        run.outputs[run.output_count].nbytes = cnp.PyArray_NBYTES(source)
        run.output_count += 1
    return 0


cdef int turn_dials(Run *run, list dials, Py_ssize_t steps) except -1:
    """Have numbers set from step to step: pairs (where, values of so many steps)."""
    cdef ndarray place, values
    if len(dials) > MOST_DIALS:
        raise ValueError("an epoch has at most 8 dials")
    for place, values in dials:
        for array in (place, values):
            if cnp.PyArray_TYPE(array) != cnp.NPY_DOUBLE or not cnp.PyArray_ISCARRAY_RO(array):
                raise ValueError("dials and their values must be contiguous float64")
        if place.ndim > 0 or cnp.PyArray_SIZE(values) < steps:
            raise ValueError(f"a dial has one place, and a value for each of {steps} steps")
        run.dials[run.dial_count] = Dial(
            <double *>cnp.PyArray_DATA(place), <const double *>cnp.PyArray_DATA(values)
        )
        run.dial_count += 1
    return 0


cdef forget():
    global FORKS
    FORKS += 1
    forget_team()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: forget())
