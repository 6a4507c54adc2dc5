# How the members of a team walk a list of instructions.

# What a kernel's answer means: nothing; the step must stop; it must stop in an epoch.
cdef enum:
    IGNORE, STOP, STOP_EPOCH

cdef enum:
    AHEAD = 16    # rows in random order are asked of memory so many before they are copied
    MOST_COPIES = 16    # inputs of an epoch, and outputs
    MOST_DIALS = 8

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

cdef struct Span:
    # Memory from one address to another.
    char *begin
    char *end

cdef struct Pointer:
    # To rows of a data set that lie in order: kernels read them there.
    const char **where         # among the arguments of a kernel
    const char *first          # in step 0
    size_t nbytes              # of a step

cdef struct Dial:
    # A number that Python sets from step to step, such as a learning rate.
    double *where
    const double *values       # one for each step

cdef struct CopySpans:
    # Room for what a run of an epoch copies and sets in every step.
    Stretch inputs[16]
    Stretch outputs[16]
    Dial dials[8]

cdef struct Run:
    # One job of the team. What changes while it runs is written by member 0, and `go_on` read
    # by the others behind a barrier; but anybody may set `failed`.
    Instruction *code
    Py_ssize_t length
    int threads
    bint epoch
    Stretch *state             # remembered before each step, and restored if it fails
    int states
    # An epoch: in each step, some inputs are pointed to, and rows of the others are gathered.
    Pointer *pointers
    int pointer_count
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
    int64_t *stamps            # if given: the time after every instruction


cdef inline int64_t failure_of(Py_ssize_t instruction, Py_ssize_t answer) noexcept nogil:
    """One number, smallest for what a single thread would have met first."""
    return (<int64_t>(instruction + 1) << 40) + answer


cdef inline Py_ssize_t failed_at(const Run *run) noexcept nogil:
    """1 + the instruction at which a step failed, or 0."""
    return run.failed >> 40


cdef inline Py_ssize_t answer_of(const Run *run) noexcept nogil:
    """What that instruction answered."""
    return run.failed & ((<int64_t>1 << 40) - 1)


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


cdef void begin_step(Run *run) noexcept nogil:
    """Set the pointers and the dials, and remember the state."""
    cdef int i
    cdef Pointer *pointer
    for i in range(run.pointer_count):
        pointer = run.pointers + i
        pointer.where[0] = pointer.first + (run.first + run.done) * pointer.nbytes
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
        walk_once(run, member, &passed)
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


cdef inline void walk_once(Run *run, int member, int64_t *passed) noexcept nogil:
    """The kernels of one step."""
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
