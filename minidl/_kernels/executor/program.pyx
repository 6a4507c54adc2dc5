"""Hold the kernels of a recorded step with their arguments, and run them in C.

A ``Program`` is made from instructions: the function pointer of a kernel and its filled argument
struct. ``execute.pyx`` runs them, on one thread or several, with a barrier where one kernel needs
what other threads have written (``recording/plan.py`` decides both).
"""

cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memcmp, memcpy
from numpy cimport ndarray

from minidl._kernels.hooks cimport changes, current_watch, is_recording
from minidl._kernels.executor.autotune cimport TEAM, choose, observe, reset
from minidl._kernels.executor.execute cimport (
    MOST_COPIES,
    MOST_SCALARS,
    CopySpan,
    EpochTables,
    Instruction,
    PointerPatch,
    Run,
    ScheduledScalar,
    answer_of,
    begin_step,
    execute_alone,
    execute_by_team,
    failed_at,
    restore_state,
)
from minidl._kernels.executor.lock cimport ProgramLock
from minidl._kernels.arguments cimport CLOCK_NEXT, CLOCK_RECORDS, CLOCK_ROOM, CLOCK_STEPS, kernel_fn

import numpy

from minidl._kernels.executor import Unfinished

cnp.import_array()

cdef extern from "Python.h":
    PyObject *PyDict_GetItem(object holder, object key)
    PyObject *PyList_GET_ITEM(object holder, Py_ssize_t place)
    PyObject *PyCell_GET(object cell)

cdef extern from "clock.h" nogil:
    int64_t nanoseconds()


NOT_RUN = Unfinished(0, 0)


# --- what a program is given, and what it gives ------------------------------------------------

cdef class RowOrder:
    """A checked order of rows, by which C gathers rows without checking them again.

    Parameters
    ----------
    order
        Row numbers; a copy of them is kept.
    rows
        How many rows the data set has: every row number is at least 0 and less than this.
    """

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
    """Stands for a part of an input in what a step returns: its number, and the offset in it."""

    cdef Py_ssize_t number, offset
    cdef object shape, dtype, strides

    def __init__(self, Py_ssize_t number, Py_ssize_t offset, ndarray like):
        self.number, self.offset = number, offset
        self.shape, self.dtype = (<object>like).shape, like.dtype
        self.strides = (<object>like).strides

    def of(self, tuple inputs):
        """Return that part of these inputs."""
        return ndarray(self.shape, self.dtype, inputs[self.number], self.offset, self.strides)


cdef object returned(object leaf, tuple inputs, bint copy):
    """Make what a call returns from tuples, lists and dicts of the program's own arrays.

    Numbers are always copied, arrays with ``copy``. No Python code runs in here, because a signal
    handler could call the step again before it is done.
    """
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
        part = (<InputView>leaf).of(inputs)
        return copied(part) if copy else part
    return leaf


cdef object copied(ndarray x):
    """Make a C-contiguous copy, for small contiguous arrays faster than NumPy does."""
    cdef ndarray y
    if not cnp.PyArray_ISCARRAY_RO(x) or cnp.PyArray_NBYTES(x) > 1 << 16:
        return cnp.PyArray_NewCopy(x, cnp.NPY_CORDER)
    y = cnp.PyArray_EMPTY(x.ndim, cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
    memcpy(cnp.PyArray_DATA(y), cnp.PyArray_DATA(x), cnp.PyArray_NBYTES(x))
    return y


cdef class Names:
    """The objects that names referred to when a step was recorded.

    Parameters
    ----------
    found
        (holder, key, value) each: a dict with a key, a list with an index, or the cell of a
        closure, whose key is not used.
    """

    def __init__(self, list found):
        self.holders = tuple([holder for holder, _, _ in found])
        self.keys = tuple([key for _, key, _ in found])
        self.values = tuple([value for _, _, value in found])

    cpdef bint same(self) except -1:
        """Whether every name still refers to the same object."""
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


cdef class Program:
    """Kernels with their arguments, ready to run.

    Parameters
    ----------
    instructions
        (function, args, threads, wait, watch) each: the address of the kernel, its argument
        struct as bytes, how many threads share it, whether all wait before it, and what its
        answer means.
    inputs
        Arrays or values: an argument of a call must be an array of the same dtype and shape,
        writeable if this one is; or else the same value.
    patches
        (input, instruction, slot, offset): where the address of an input goes.
    state
        Arrays to restore when a step fails.
    memory
        The memory of temporaries and results. No input of a call may lie in it.
    persistent
        Contiguous arrays that live on between steps: parameters, gradients, moments, state. No
        input of a call may lie in them, either.
    keep
        Objects that must live as long as the program, such as the arrays its pointers point into.
    lock
        Lock shared with the programs that must not run at the same time.
    """

    def __cinit__(self):
        self.code = NULL
        self.args = NULL
        self.state = NULL
        self.pointers = NULL
        self.owned = NULL
        self.seen = -1
        reset(&self.choice)

    def __init__(
        self, list instructions, list inputs, list patches, list state, ndarray memory,
        list persistent, object keep, ProgramLock lock=None
    ):
        cdef Py_ssize_t i, size = sum(len(args) + 64 for _, args, *_ in instructions)
        cdef char *at
        cdef ndarray array, copy
        self.length, self.states = len(instructions), len(state)
        self.code = <Instruction *>PyMem_Malloc((self.length + 1) * sizeof(Instruction))
        self.args = <char *>PyMem_Malloc(size + 1)
        self.state = <CopySpan *>PyMem_Malloc((self.states + 1) * sizeof(CopySpan))
        self.pointers = <PointerPatch *>PyMem_Malloc((len(patches) + 1) * sizeof(PointerPatch))
        self.owned = <Span *>PyMem_Malloc((len(persistent) + 1) * sizeof(Span))
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
        self.copies_of_state = [array.copy() for array in state]
        for i in range(self.states):
            array, copy = state[i], self.copies_of_state[i]
            self.state[i] = CopySpan(
                <char *>cnp.PyArray_DATA(array), <char *>cnp.PyArray_DATA(copy),
                cnp.PyArray_NBYTES(array)
            )
        self.kinds, self.patches, self.keep = inputs, patches, [state, memory, persistent, keep]
        self.changes_inputs = any([isinstance(x, ndarray) and x.flags.writeable for x in inputs])
        self.own([memory, *persistent])
        self.lock = ProgramLock() if lock is None else lock
        self.scheduled = []

    cdef int own(self, list arrays) except -1:
        """Note where these arrays lie; adjacent parts of a vector become one span."""
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

    cdef bint matches(self, tuple inputs, bint constants) except -1:
        """Whether the program was recorded for inputs like these."""
        cdef Py_ssize_t i
        if len(inputs) != len(self.kinds):
            return False
        for i in range(len(inputs)):
            if type(self.kinds[i]) is ndarray:
                if not matches_array(inputs[i], self.kinds[i]):
                    return False
            elif constants and not same_constant(inputs[i], self.kinds[i]):
                return False
        return True

    cdef bint lie_apart(self, tuple inputs) except -1:
        """Whether kernels may use the memory of these inputs, which match."""
        cdef Py_ssize_t i
        for i in range(len(inputs)):
            if type(self.kinds[i]) is ndarray and self.owns(span_of(inputs[i])):
                return False
        return not self.changes_inputs or self.changes_apart(inputs)

    cdef int check(self, tuple inputs) except -1:
        """Raise ValueError unless kernels may use the arrays among these inputs."""
        if not (self.matches(inputs, False) and self.lie_apart(inputs)):
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
        """Whether no input that is changed shares memory with another, which would be a race."""
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

    cdef bint valid(self) except -1:
        """Whether nothing has changed since the program was found valid."""
        return self.seen == changes() and (self.names is None or self.names.same())

    cpdef bint serves(self, tuple inputs) except -1:
        """Whether the program is valid now, and was recorded for inputs like these."""
        return self.valid() and self.matches(inputs, True)

    cpdef object replay(self, tuple inputs):
        """Run on these inputs; returns what the step returns, or an ``Unfinished``.

        The result is made under the lock, before another call can overwrite it. Where the steps of
        this thread are watched and this one is due, the program of a watched step runs instead.
        """
        cdef Run run
        cdef list rates
        cdef bint waited
        cdef PyObject *watch = current_watch()
        if watch != NULL:
            if watch != <PyObject *>self.watch:
                return NOT_RUN
            if self.clock is not None and self.until_due() == 0:
                return self.watched.replay(inputs) if self.can_be_watched() else NOT_RUN
        if is_recording() or not (self.serves(inputs) and self.lie_apart(inputs)):
            return NOT_RUN
        waited = self.lock.acquire()
        try:
            if waited and not self.valid():
                return NOT_RUN
            # Schedules are Python functions, so all are called first: no signal handler can run
            # from the first rate that is set to the end of the step.
            rates = [(group.state["learning_rate"], group.rates(1)[0]) for group in self.scheduled]
            self.point(inputs)
            for place, rate in rates:
                place[...] = rate
            self.begin(&run)
            begin_step(&run)
            self.perform(&run)
            if run.failed:
                return Unfinished(failed_at(&run), answer_of(&run), self)
            if watch != NULL and self.clock is not None:
                self.count(1)
            return returned(self.result, inputs, self.copies)
        finally:
            self.lock.release()

    cdef Py_ssize_t until_due(self) noexcept:
        """How many runs come before the next one that is watched."""
        cdef unsigned long long *clock = <unsigned long long *>cnp.PyArray_DATA(self.clock)
        cdef Py_ssize_t steps = clock[CLOCK_NEXT] - clock[CLOCK_STEPS] - 1
        if steps <= 0:
            return 0
        return (steps + self.advance - 1) // self.advance if self.advance > 0 else steps

    cdef bint can_be_watched(self) noexcept:
        """Whether the program of a watched step is known, and has room for a record."""
        cdef unsigned long long *clock = <unsigned long long *>cnp.PyArray_DATA(self.clock)
        return self.watched is not None and (
            clock[CLOCK_RECORDS] < clock[CLOCK_ROOM] or self.advance == 0
        )

    cdef void count(self, Py_ssize_t runs) noexcept:
        """Count the steps of runs that were not watched."""
        (<unsigned long long *>cnp.PyArray_DATA(self.clock))[CLOCK_STEPS] += runs * self.advance

    cdef void begin(self, Run *run) noexcept:
        """Describe a run of one step."""
        run.code, run.length = self.code, self.length
        run.state, run.states = self.state, self.states
        run.epoch = run.go_on = False
        run.pointer_count = run.input_count = run.scalar_count = run.output_count = 0
        run.first = run.done = run.deadline = run.failed = 0
        run.steps, run.rows, run.order, run.stamps = 1, 0, NULL, NULL

    cdef void perform(self, Run *run):
        """Execute a run on one thread or by the team, whichever is faster, and undo a failed step.

        A run that finds the team taken uses one thread, and is a sample of neither.
        """
        cdef bint team = False, teamed
        cdef int64_t begun
        with nogil:
            if self.threads > 1:
                team = self.choose_threads(run) == TEAM
            begun = nanoseconds()
            teamed = team and execute_by_team(run, self.threads)
            if not teamed:
                execute_alone(run)
            self.used = run.threads
            if self.tries(run) and run.failed == 0 and teamed == team:
                observe(&self.choice, nanoseconds() - begun, run.done)
            if run.failed:
                restore_state(self.state, self.states)

    cdef bint tries(self, const Run *run) noexcept nogil:
        """Whether both candidates are tried: not in a timed run, which has more barriers."""
        return self.threads > 1 and not self.always_team and run.stamps == NULL

    cdef int choose_threads(self, Run *run) noexcept nogil:
        """Choose one thread or the team, and limit the run to the time that the choice holds."""
        cdef int64_t most
        cdef int candidate
        if not self.tries(run):
            return TEAM if self.always_team else self.choice.best
        candidate = choose(&self.choice, &most)
        run.deadline = min(run.deadline, nanoseconds() + most)
        return candidate

    # --- many steps -----------------------------------------------------------------------

    def steps(
        self, tuple sources, tuple targets, RowOrder order, Py_ssize_t rows, Py_ssize_t first,
        Py_ssize_t count, list scalars, list outputs, double seconds, list watched_outputs=None
    ):
        """Run steps first … first + count - 1 of an epoch, or as many as fit into ``seconds``.

        Step s works on the rows order[s * rows : (s + 1) * rows] of the sources; if order is None,
        on the rows from s * rows on. Rows without an order are read in place, unless the step
        changes such memory; others are copied to the targets. After a step that failed, the targets
        hold its rows in any case. ``scalars`` are pairs (array of no dimensions, its value in every
        step), ``outputs`` are pairs (array, array with room for it of every step). With
        ``watched_outputs``, those of the program of a watched step, that program runs where the
        clock says so; where it cannot, the run ends. Returns the number of steps made, 1 + the
        instruction that failed, or 0, and the answer of that instruction; ``latest`` is the program
        that ran last.
        """
        cdef Run run, watched_run
        cdef Run *now = &run
        cdef EpochTables tables, watched_tables
        cdef int64_t deadline
        cdef Py_ssize_t made = 0, last = first + count, ahead
        cdef bint watching = watched_outputs is not None and self.clock is not None
        cdef list in_place
        self.check_steps(sources, targets, order, rows, first, count)
        self.latest = self
        with self.lock:
            in_place = self.enter_epoch(
                &run, &tables, sources, targets, order, rows, last, scalars, outputs
            )
            if watching and self.watched is not None:
                self.watched.check(targets)
                self.watched.enter_epoch(
                    &watched_run, &watched_tables, sources, targets, order, rows, last, scalars,
                    watched_outputs
                )
            deadline = nanoseconds() + <int64_t>(seconds * 1e9)
            while not now.failed and first < last and nanoseconds() < deadline:
                now, self.latest, ahead = &run, self, last - first
                if watching:
                    ahead = min(ahead, self.until_due())
                    if ahead == 0 and not self.can_be_watched():
                        break
                    if ahead == 0:
                        now, self.latest, ahead = &watched_run, self.watched, 1
                now.first, now.steps, now.done, now.deadline = first, ahead, 0, deadline
                self.latest.perform(now)
                if watching and now == &run:
                    self.count(now.done)
                made += now.done
                first += now.done
            if now.failed:
                for source, target in in_place:
                    target[...] = source[first * rows : (first + 1) * rows]
            return made, failed_at(now), answer_of(now)

    cdef list enter_epoch(
        self, Run *run, EpochTables *tables, tuple sources, tuple targets, RowOrder order,
        Py_ssize_t rows, Py_ssize_t steps, list scalars, list outputs
    ):
        """Describe a run of some of so many steps; returns (source, target) of what is read in
        place."""
        cdef Py_ssize_t i
        cdef list in_place = []
        self.point(targets)
        self.begin(run)
        run.epoch, run.rows = True, rows
        run.order = NULL if order is None else <Py_ssize_t *>cnp.PyArray_DATA(order.order)
        run.inputs, run.outputs, run.scalars = tables.inputs, tables.outputs, tables.scalars
        run.pointers = self.pointers
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            if order is None and self.only_read(i, source):
                self.aim(run, i, source, target)
                in_place.append((source, target))
                continue
            run.inputs[run.input_count] = copy_span(source, target)
            run.inputs[run.input_count].nbytes //= rows
            run.input_count += 1
        keep_outputs(run, outputs, steps)
        set_scalars(run, scalars, steps)
        return in_place

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
        """Whether kernels may read an input in its source, because the step changes neither."""
        return not cnp.PyArray_ISWRITEABLE(self.kinds[number]) and not self.owns(span_of(source))

    cdef int aim(self, Run *run, Py_ssize_t number, ndarray source, ndarray target) except -1:
        """Have the kernels that read an input read it in place, in the rows of each step."""
        cdef Py_ssize_t patched, instruction, slot, offset
        for patched, instruction, slot, offset in self.patches:
            if patched == number:
                run.pointers[run.pointer_count] = PointerPatch(
                    <const char **>self.code[instruction].args + slot,
                    cnp.PyArray_BYTES(source) + offset, cnp.PyArray_NBYTES(target)
                )
                run.pointer_count += 1
        return 0

    def time(self, tuple inputs, ndarray stamps not None):
        """Run once, and note the time: stamps[i] in nanoseconds before instruction i, the last one
        at the end. Returns 0 or 1 + the instruction that failed, and its answer."""
        cdef Run run
        if (
            cnp.PyArray_TYPE(stamps) != cnp.NPY_INT64 or stamps.ndim != 1
            or stamps.shape[0] != self.length + 1 or not cnp.PyArray_ISCARRAY(stamps)
        ):
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
        """Enter these inputs and copy the state, for ``run_one``. The caller holds the lock."""
        cdef Run run
        self.check(inputs)
        self.point(inputs)
        self.begin(&run)
        begin_step(&run)

    def run_one(self, Py_ssize_t index):
        """Run one instruction on this thread; returns its answer."""
        if not 0 <= index < self.length:
            raise IndexError(f"there is no instruction {index} among {self.length}")
        return self.code[index].kernel(self.code[index].args, 0, 1)

    def restore(self):
        """Copy back the state that ``prepare`` has copied."""
        restore_state(self.state, self.states)


cdef bint same_constant(object a, object b) except -1:
    """Whether two arguments are the same to any function.

    0.0 and -0.0 are not, although they are equal. Objects that are no plain values must be
    identical, because ``==`` need not compare all of them.
    """
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


cdef inline bint matches_array(object given, ndarray kind) except -1:
    """Whether this is a contiguous array like another one, and writeable if that is."""
    cdef ndarray x
    if type(given) is not ndarray:
        return False
    x = given
    return (
        cnp.PyArray_TYPE(x) == cnp.PyArray_TYPE(kind)
        and cnp.PyArray_ISCARRAY_RO(x) and cnp.PyArray_SAMESHAPE(x, kind)
        and (cnp.PyArray_ISWRITEABLE(x) or not cnp.PyArray_ISWRITEABLE(kind))
    )


cdef inline Span span_of(ndarray array) noexcept:
    """Return the memory of a contiguous array."""
    cdef char *begin = <char *>cnp.PyArray_DATA(array)
    return Span(begin, begin + cnp.PyArray_NBYTES(array))


cdef inline bint overlap(Span a, Span b) noexcept:
    return a.begin < b.end and b.begin < a.end


cdef CopySpan copy_span(ndarray whole, ndarray batch) noexcept:
    """Describe the copy of rows of a data set to a batch."""
    return CopySpan(
        <char *>cnp.PyArray_DATA(whole), <char *>cnp.PyArray_DATA(batch), cnp.PyArray_NBYTES(batch)
    )


cdef int keep_outputs(Run *run, list outputs, Py_ssize_t steps) except -1:
    """Have outputs kept: pairs (array of a step, array with room for so many steps)."""
    cdef ndarray source, target
    if len(outputs) > MOST_COPIES:
        raise ValueError("an epoch has at most 16 outputs")
    for source, target in outputs:
        if (
            not cnp.PyArray_ISCARRAY_RO(source) or not cnp.PyArray_ISCARRAY(target)
            or cnp.PyArray_NBYTES(target) < steps * cnp.PyArray_NBYTES(source)
        ):
            raise ValueError("an output of an epoch must be contiguous, with room for all steps")
        run.outputs[run.output_count] = copy_span(source, target)
        run.outputs[run.output_count].nbytes = cnp.PyArray_NBYTES(source)
        run.output_count += 1
    return 0


cdef int set_scalars(Run *run, list scalars, Py_ssize_t steps) except -1:
    """Have numbers set before every step: pairs (array of the number, values of so many steps)."""
    cdef ndarray place, values
    if len(scalars) > MOST_SCALARS:
        raise ValueError("an epoch has at most 8 scheduled scalars")
    for place, values in scalars:
        for array in (place, values):
            if cnp.PyArray_TYPE(array) != cnp.NPY_DOUBLE or not cnp.PyArray_ISCARRAY_RO(array):
                raise ValueError("scheduled scalars and their values must be contiguous float64")
        if place.ndim > 0 or cnp.PyArray_SIZE(values) < steps:
            raise ValueError(
                f"a scheduled scalar has one place, and a value for each of {steps} steps"
            )
        run.scalars[run.scalar_count] = ScheduledScalar(
            <double *>cnp.PyArray_DATA(place), <const double *>cnp.PyArray_DATA(values)
        )
        run.scalar_count += 1
    return 0
