"""Run a recorded list of kernels, on one thread or on a team of threads.

Every member of the team goes through the same list and computes its part of each kernel that is
shared. Running touches no Python object and allocates nothing.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

import os

cdef extern from "clock.h" nogil:
    int64_t nanoseconds()

cdef extern from "team.h" nogil:
    ctypedef void (*work_fn)(void *what, int member) noexcept
    void expect(const void *p)
    int hire(int threads)
    bint take_team()
    void leave_team()
    void team_work(work_fn work, void *what, int threads)
    void barrier(int threads, int64_t *passed)
    void forget_team()
    void keep_first(int64_t *p, int64_t value)
    int64_t read_first(int64_t *p)

cdef enum:
    AHEAD = 16    # how many rows before its copy a row in random order is prefetched


cdef void execute_alone(Run *run) noexcept nogil:
    """Run on the calling thread."""
    run.threads = 1
    execute_steps(run, 0)


cdef bint execute_by_team(Run *run, int threads) noexcept nogil:
    """Run on a team of up to so many threads; does nothing and returns False if it is taken."""
    if not take_team():
        return False
    run.threads = hire(threads)
    team_work(execute_steps, run, run.threads)
    leave_team()
    return True


cdef void execute_steps(void *what, int member) noexcept nogil:
    """Run the list as a member of the team, step after step."""
    cdef Run *run = <Run *>what
    cdef int threads = run.threads
    cdef int64_t passed = 0
    cdef Py_ssize_t step = run.first
    while True:
        if run.epoch:
            if member == 0:
                begin_step(run)
            gather(run, member, step)
            if threads > 1:
                barrier(threads, &passed)
        execute_kernels(run, member, &passed)
        if member == 0:
            run.go_on = run.done + 1 < run.steps and nanoseconds() < run.deadline
        if threads > 1:
            barrier(threads, &passed)
        if run.failed:
            break
        if member == 0:
            end_step(run)
        if not run.go_on:
            break
        step += 1


cdef inline void execute_kernels(Run *run, int member, int64_t *passed) noexcept nogil:
    """Run the kernels of one step."""
    cdef Instruction *at = run.code
    cdef Instruction *end = run.code + run.length
    cdef Py_ssize_t answer
    cdef int threads
    while at < end:
        if run.threads > 1 and (at.wait or run.stamps != NULL):
            barrier(run.threads, passed)
        threads = at.threads if at.threads < run.threads else run.threads
        if member < threads and not failed_before(run, at - run.code):
            answer = at.kernel(at.args, member, threads)
            if answer > 0 and (at.watch == STOP or (at.watch == STOP_EPOCH and run.epoch)):
                keep_first(&run.failed, failure_of(at - run.code, answer))
        at += 1
        if run.stamps != NULL:
            if run.threads > 1:
                barrier(run.threads, passed)
            if member == 0:
                run.stamps[at - run.code] = nanoseconds()


cdef inline int64_t failure_of(Py_ssize_t instruction, Py_ssize_t answer) noexcept nogil:
    """Encode a failure as one number: the smallest is what a single thread would meet first."""
    return (<int64_t>(instruction + 1) << 40) + answer


cdef inline bint failed_before(const Run *run, Py_ssize_t instruction) noexcept nogil:
    """Whether an earlier instruction has stopped the step."""
    cdef int64_t failed = read_first(&run.failed)
    return failed != 0 and failed < failure_of(instruction, 0)


cdef void begin_step(Run *run) noexcept nogil:
    """Set pointers and scheduled scalars, and copy the state."""
    cdef int i
    cdef PointerPatch *pointer
    for i in range(run.pointer_count):
        pointer = run.pointers + i
        pointer.where[0] = pointer.first + (run.first + run.done) * pointer.nbytes
    for i in range(run.scalar_count):
        run.scalars[i].where[0] = run.scalars[i].values[run.first + run.done]
    for i in range(run.states):
        memcpy(run.state[i].target, run.state[i].source, run.state[i].nbytes)


cdef void restore_state(const CopySpan *state, int states) noexcept nogil:
    """Copy back what ``begin_step`` copied."""
    cdef int i
    for i in range(states):
        memcpy(state[i].source, state[i].target, state[i].nbytes)


cdef void gather(const Run *run, int member, Py_ssize_t step) noexcept nogil:
    """Copy this member's part of the rows of a step."""
    cdef Py_ssize_t row, begin, end, source, first = step * run.rows
    cdef CopySpan *x
    cdef int i
    begin = run.rows * member // run.threads
    end = run.rows * (member + 1) // run.threads
    for i in range(run.input_count):
        x = run.inputs + i
        if run.order == NULL:
            memcpy(
                x.target + begin * x.nbytes, x.source + (first + begin) * x.nbytes,
                (end - begin) * x.nbytes
            )
            continue
        for row in range(begin, end):
            if row + AHEAD < end:
                expect(x.source + run.order[first + row + AHEAD] * x.nbytes)
            source = run.order[first + row]
            memcpy(x.target + row * x.nbytes, x.source + source * x.nbytes, x.nbytes)


cdef void end_step(Run *run) noexcept nogil:
    """Keep the outputs of a step that is complete."""
    cdef int i
    cdef CopySpan *y
    for i in range(run.output_count):
        y = run.outputs + i
        memcpy(y.target + (run.first + run.done) * y.nbytes, y.source, y.nbytes)
    run.done += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: forget_team())
