# How the members of a team walk a list of instructions.

# What a kernel's answer means: nothing; the step must stop; it must stop in an epoch.
cdef enum:
    IGNORE, STOP, STOP_EPOCH

cdef struct Instruction:
    kernel_fn kernel
    const void *args
    int threads                # that share the kernel
    bint wait                  # for all threads, before
    int watch

cdef struct Stretch:
    # Memory to copy from one place to another.
    char *source
    char *target
    size_t nbytes              # of a step, or of a row

cdef struct Dial:
    # A number that Python sets from step to step, such as a learning rate.
    double *where
    const double *values       # one for each step

cdef struct Run:
    # One job of the team. What changes while it runs is written by member 0, and `go_on` read
    # by the others behind a barrier; but anybody may set `failed`.
    Instruction *code
    Py_ssize_t length
    int threads
    bint epoch
    Stretch *state             # remembered before each step, and restored if it fails
    int states
    # An epoch: in each step, rows of the inputs are gathered into the program's own memory.
    Stretch *inputs
    int input_count
    Py_ssize_t *order          # of the rows, or NULL
    Py_ssize_t rows            # of a step
    Py_ssize_t first, steps    # of this job
    Dial *dials
    int dial_count
    Stretch *outputs           # kept from each step
    int output_count
    int64_t deadline
    Py_ssize_t done
    bint go_on
    int64_t failed             # the first answer that stops the step, and whose: see failure_of
    int64_t alone_from         # the barrier from which member 0 goes on alone, or 0
    int64_t *stamps            # if given: the time after every instruction


cdef inline int64_t failure_of(Py_ssize_t instruction, Py_ssize_t answer) noexcept nogil:
    """One number, smallest for what a single thread would have met first."""
    return (<int64_t>(instruction + 1) << 40) + answer


cdef inline bint failed_before(const Run *run, Py_ssize_t instruction) noexcept nogil:
    cdef int64_t failed = read_first(&run.failed)
    return failed != 0 and failed < failure_of(instruction, 0)


cdef void gather(const Run *run, int member, Py_ssize_t step) noexcept nogil:
    """Copy this member's share of the rows of a step."""
    cdef Py_ssize_t row, begin, end, source, first = step * run.rows
    cdef Stretch *x
    cdef int i
    begin = run.rows * member // run.threads
    end = run.rows * (member + 1) // run.threads
    for i in range(run.input_count):
        x = run.inputs + i
        for row in range(begin, end):
            source = run.order[first + row] if run.order != NULL else first + row
            memcpy(x.target + row * x.nbytes, x.source + source * x.nbytes, x.nbytes)


cdef void begin_step(Run *run) noexcept nogil:
    """Set the dials, and remember the state."""
    cdef int i
    for i in range(run.dial_count):
        run.dials[i].where[0] = run.dials[i].values[run.first + run.done]
    for i in range(run.states):
        memcpy(run.state[i].target, run.state[i].source, run.state[i].nbytes)


cdef void end_step(Run *run) noexcept nogil:
    """Keep the outputs of a step that is complete."""
    cdef int i
    cdef Stretch *y
    for i in range(run.output_count):
        y = run.outputs + i
        memcpy(y.target + (run.first + run.done) * y.nbytes, y.source, y.nbytes)
    run.done += 1


cdef void walk(void *what, int member) noexcept nogil:
    """What each member of the team does: walk the list, step after step."""
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
        if not walk_once(run, member, &threads, &passed):
            return
        if member == 0:
            run.go_on = (
                run.done + 1 < run.steps and nanoseconds() < run.deadline
                and (run.threads == 1 or not often_late(run.done))
            )
        if threads > 1:
            barrier(threads, &passed)
        if run.failed or not run.go_on:
            break
        if member == 0:
            end_step(run)
        step += 1


cdef inline bint meet(Run *run, int member, int *threads, int64_t *passed) noexcept nogil:
    """A barrier. On a loaded machine member 0 goes on alone from here; False tells to leave."""
    if member == 0 and often_late(run.done):
        keep_first(&run.alone_from, passed[0] + threads[0])
    barrier(threads[0], passed)
    if read_first(&run.alone_from) == passed[0]:
        threads[0] = 1
        return member == 0
    return True


cdef inline bint walk_once(Run *run, int member, int *team, int64_t *passed) noexcept nogil:
    """The kernels of one step, by a team of so many; False if this member is to leave it."""
    cdef Instruction *at = run.code
    cdef Instruction *end = run.code + run.length
    cdef Py_ssize_t answer
    cdef int threads
    while at < end:
        if team[0] > 1 and (at.wait or run.stamps != NULL) and not meet(run, member, team, passed):
            return False
        threads = at.threads if at.threads < team[0] else team[0]
        if member < threads and not failed_before(run, at - run.code):
            answer = at.kernel(at.args, member, threads)
            if answer > 0 and (at.watch == STOP or (at.watch == STOP_EPOCH and run.epoch)):
                keep_first(&run.failed, failure_of(at - run.code, answer))
        at += 1
        if run.stamps != NULL:
            if team[0] > 1:
                barrier(team[0], passed)
            if member == 0:
                run.stamps[at - run.code] = nanoseconds()
    return True
