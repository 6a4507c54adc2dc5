"""A recorded step: a list of kernels with their arguments, walked in C.

``Program`` is made from instructions, each a kernel's function pointer and a filled argument
struct. Running it touches no Python object and allocates nothing. Several threads walk the same
list, each doing its share of the kernels that are worth sharing, with a barrier where one kernel
needs what another thread's share of an earlier one has written (``recording/planning.py``
decides both).
"""

cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t
from libc.string cimport memcpy
from numpy cimport ndarray

from minidl._kernels.dispatch cimport change_count, is_recording
from minidl._kernels.kernel_table cimport kernel_fn

import os

cnp.import_array()

cdef extern from "team.h" nogil:
    ctypedef void (*work_fn)(void *what, int member) noexcept
    enum: MOST_THREADS
    int64_t nanoseconds()
    void nap()
    void expect(const void *p)
    int hire(int threads)
    bint take_team()
    void leave_team()
    void team_work(work_fn work, void *what, int threads)
    void barrier(int threads, int64_t *passed)
    void forget_team()
    bint exchange(int *p, int value)
    void keep_first(int64_t *p, int64_t value)
    int64_t read_first(int64_t *p)
    void set_int(int *p, int value)

cdef int FORKS = 0           # locks taken before a fork do not hold in the child

include "walk.pxi"
include "turn.pxi"
include "ways.pxi"


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
        Contiguous arrays that live on between steps: parameters, gradients, moments, state.
    keep
        What else must live as long as the program, such as the arrays its pointers point into.
    turn
        Shared with the programs that must not run at the same time.
    """

    cdef Instruction *code
    cdef Py_ssize_t length
    cdef char *args
    cdef Stretch *state
    cdef Pointer *pointers
    cdef int states
    cdef list kinds, patches, changing, keep, shadows
    cdef char *memory
    cdef char *memory_end
    cdef public Turn turn
    cdef Ways ways
    cdef public bint together        # always, without trying what is faster
    cdef readonly int used           # threads of the latest run
    cdef public object result        # what a call returns
    cdef public long seen            # count of changes up to which this program was checked
    cdef readonly int threads
    cdef readonly Py_ssize_t answer  # of the instruction that failed

    def __cinit__(self):
        self.code = NULL
        self.args = NULL
        self.state = NULL
        self.pointers = NULL
        self.seen = -1
        self.ways.way, self.ways.trial, self.ways.until_trial = TOGETHER, False, 0

    def __init__(
        self, list instructions, list inputs, list patches, list state, ndarray memory,
        list lasting, object keep, Turn turn=None
    ):
        cdef Py_ssize_t i, size = sum(len(args) + 64 for _, args, *_ in instructions)
        cdef char *at
        cdef ndarray array, shadow
        self.length, self.states = len(instructions), len(state)
        self.code = <Instruction *>PyMem_Malloc((self.length + 1) * sizeof(Instruction))
        self.args = <char *>PyMem_Malloc(size + 1)
        self.state = <Stretch *>PyMem_Malloc((self.states + 1) * sizeof(Stretch))
        self.pointers = <Pointer *>PyMem_Malloc((len(patches) + 1) * sizeof(Pointer))
        if NULL in (self.code, self.args, self.state, self.pointers):
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
        self.memory = <char *>cnp.PyArray_DATA(memory)
        self.memory_end = self.memory + cnp.PyArray_NBYTES(memory)
        self.kinds, self.patches, self.changing = inputs, patches, [memory, *lasting]
        self.keep = [state, keep]
        self.turn = Turn() if turn is None else turn

    def __dealloc__(self):
        PyMem_Free(self.code)
        PyMem_Free(self.args)
        PyMem_Free(self.state)
        PyMem_Free(self.pointers)

    # --- one step -------------------------------------------------------------------------

    cdef bint fits(self, tuple inputs):
        """Whether these are the inputs this program was recorded for."""
        cdef Py_ssize_t i
        cdef ndarray x, kind
        if len(inputs) != len(self.kinds):
            return False
        for i in range(len(inputs)):
            if type(self.kinds[i]) is ndarray:
                if type(inputs[i]) is not ndarray:
                    return False
                x, kind = inputs[i], self.kinds[i]
                if (
                    cnp.PyArray_TYPE(x) != cnp.PyArray_TYPE(kind)
                    or not cnp.PyArray_ISCARRAY_RO(x) or not cnp.PyArray_SAMESHAPE(x, kind)
                    or (cnp.PyArray_ISWRITEABLE(kind) and not cnp.PyArray_ISWRITEABLE(x))
                    or self.memory <= <char *>cnp.PyArray_DATA(x) < self.memory_end
                ):
                    return False
            elif type(inputs[i]) is not type(self.kinds[i]) or inputs[i] != self.kinds[i]:
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
        """Run on these inputs. Returns 0, or 1 + the instruction at which the step failed, or
        -1 if something is not as it was when this was recorded."""
        cdef Run run
        if self.seen != change_count() or not self.fits(inputs):
            return -1
        self.turn.take()
        try:
            if self.seen != change_count():    # while this waited
                return -1
            self.point(inputs)
            self.begin(&run)
            begin_step(&run)
            self.perform(&run)
        finally:
            self.turn.give()
        return run.failed >> 40

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
                self.answer = run.failed & ((<int64_t>1 << 40) - 1)
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
        self, tuple sources, tuple targets, ndarray order, Py_ssize_t rows, Py_ssize_t first,
        Py_ssize_t count, list dials, list outputs, double seconds
    ):
        """Steps first … first + count - 1 of an epoch, or as many as fit into so many seconds.

        Step s works on rows order[s * rows : (s + 1) * rows] of the sources, or with order None
        on the rows from s * rows on: where they are, if they are in order and the step changes no
        such memory, else copied to the targets. Of a step that fails, the targets hold them, too.
        dials are pairs (array of no dimensions, its value in every step); outputs pairs (array,
        array of as many as there are steps). Returns how many steps were made, and 0 or 1 + the
        instruction that failed.
        """
        cdef Run run
        cdef Stretch copies[32]
        cdef Dial turned[8]
        cdef int64_t deadline
        cdef Py_ssize_t made = 0
        cdef list in_place = []
        if len(sources) > 16 or len(outputs) > 16 or len(dials) > 8:
            raise ValueError("an epoch has at most 16 inputs, 16 outputs and 8 dials")
        self.turn.take()
        try:
            self.point(targets)
            self.begin(&run)
            run.epoch, run.rows, run.first = True, rows, first
            run.order = NULL if order is None else <Py_ssize_t *>cnp.PyArray_DATA(order)
            run.inputs, run.outputs, run.dials = copies, copies + 16, turned
            run.pointers = self.pointers
            for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
                if order is None and self.only_read(i, source):
                    self.aim(&run, i, source, target)
                    in_place.append((source, target))
                    continue
                run.inputs[run.input_count] = stretch(source, target)
                run.inputs[run.input_count].nbytes //= rows
                run.input_count += 1
            for source, target in outputs:
                run.outputs[run.output_count] = stretch(source, target)
                run.outputs[run.output_count].nbytes = source.nbytes
                run.output_count += 1
            for place, values in dials:
                turned[run.dial_count] = dial(place, values)
                run.dial_count += 1
            deadline = nanoseconds() + <int64_t>(seconds * 1e9)
            while not run.failed and run.first < first + count and nanoseconds() < deadline:
                run.steps, run.deadline = first + count - run.first, deadline
                self.perform(&run)
                made += run.done
                run.first, run.done = run.first + run.done, 0
            if run.failed:
                for source, target in in_place:
                    target[...] = source[run.first * rows : (run.first + 1) * rows]
        finally:
            self.turn.give()
        return made, run.failed >> 40

    cdef bint only_read(self, Py_ssize_t number, ndarray source):
        """Whether kernels may read an input in its source: in none of what the step changes."""
        cdef ndarray array
        cdef char *begin = <char *>cnp.PyArray_DATA(source)
        cdef char *end = begin + cnp.PyArray_NBYTES(source)
        if cnp.PyArray_ISWRITEABLE(self.kinds[number]):
            return False
        for array in self.changing:
            if (
                begin < <char *>cnp.PyArray_DATA(array) + cnp.PyArray_NBYTES(array)
                and <char *>cnp.PyArray_DATA(array) < end
            ):
                return False
        return True

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
        last one the time at the end."""
        cdef Run run
        if cnp.PyArray_TYPE(stamps) != cnp.NPY_INT64 or stamps.shape[0] != self.length + 1:
            raise ValueError(f"stamps must be {self.length + 1} int64")
        self.turn.take()
        try:
            self.point(inputs)
            self.begin(&run)
            begin_step(&run)
            run.stamps = <int64_t *>cnp.PyArray_DATA(stamps)
            run.stamps[0] = nanoseconds()
            self.perform(&run)
        finally:
            self.turn.give()
        return run.failed >> 40

    # --- kernel by kernel ------------------------------------------------------------------

    def prepare(self, tuple inputs):
        """Be about to run on these inputs: remember the state."""
        cdef Run run
        self.point(inputs)
        self.begin(&run)
        begin_step(&run)

    def run_one(self, Py_ssize_t index):
        """Run one instruction, on this thread; returns its answer."""
        return self.code[index].kernel(self.code[index].args, 0, 1)

    def restore(self):
        """Bring the state back that ``prepare`` remembered."""
        cdef int i
        for i in range(self.states):
            memcpy(self.state[i].source, self.state[i].target, self.state[i].nbytes)


include "replayer.pxi"


cdef Stretch stretch(ndarray whole, ndarray batch):
    """From the rows of a data set to those of a batch."""
    return Stretch(
        <char *>cnp.PyArray_DATA(whole), <char *>cnp.PyArray_DATA(batch), cnp.PyArray_NBYTES(batch)
    )


cdef Dial dial(ndarray place, ndarray values):
    return Dial(<double *>cnp.PyArray_DATA(place), <const double *>cnp.PyArray_DATA(values))


cdef forget():
    global FORKS
    FORKS += 1
    forget_team()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: forget())
