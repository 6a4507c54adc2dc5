from libc.stdint cimport int64_t

from minidl._kernels.arguments cimport kernel_fn

# What a kernel's answer > 0 means: nothing; the step must stop; it must stop in an epoch.
cdef enum:
    IGNORE, STOP, STOP_EPOCH

cdef enum:
    MOST_COPIES = 16    # inputs of an epoch, and outputs
    MOST_SCALARS = 8

cdef struct Instruction:
    kernel_fn kernel
    const void *args
    int threads                # that share the kernel
    bint wait                  # whether all threads wait for each other before the kernel
    int watch                  # what its answer means

cdef struct CopySpan:
    # Memory to copy from one place to another.
    char *source
    char *target
    size_t nbytes              # of a step, or of a row

cdef struct PointerPatch:
    # An argument of a kernel that points to the rows of a step where they lie in the data set.
    const char **where         # in the argument struct
    const char *first          # what it is in step 0
    size_t nbytes              # of a step: how far it moves

cdef struct ScheduledScalar:
    # A number that Python computed in advance for every step, such as a learning rate.
    double *where
    const double *values       # one for each step

cdef struct EpochTables:
    # Memory for the lists of what an epoch copies and sets in every step.
    CopySpan inputs[16]
    CopySpan outputs[16]
    ScheduledScalar scalars[8]

cdef struct Run:
    # One job of the team. Member 0 writes what changes while the job runs, and the others read
    # `go_on` behind a barrier; but any member may set `failed`.
    Instruction *code
    Py_ssize_t length
    int threads
    bint epoch
    CopySpan *state            # copied before each step, and copied back if the step fails
    int states
    # An epoch: in each step, some inputs are pointed to, and rows of the others are gathered.
    PointerPatch *pointers
    int pointer_count
    CopySpan *inputs
    int input_count
    Py_ssize_t *order          # of the rows, or NULL
    Py_ssize_t rows            # of a step
    Py_ssize_t first, steps    # of this job
    ScheduledScalar *scalars
    int scalar_count
    CopySpan *outputs          # kept from each step
    int output_count
    int64_t deadline
    Py_ssize_t done
    bint go_on
    int64_t failed             # the first answer that stops the step, and whose: see failure_of
    int64_t *stamps            # if not NULL: the time after every instruction

cdef void begin_step(Run *run) noexcept nogil
cdef void execute_alone(Run *run) noexcept nogil
cdef bint execute_by_team(Run *run, int threads) noexcept nogil
cdef void restore_state(const CopySpan *state, int states) noexcept nogil

cdef inline Py_ssize_t failed_at(const Run *run) noexcept nogil:
    """1 + the instruction at which the step failed, or 0."""
    return run.failed >> 40

cdef inline Py_ssize_t answer_of(const Run *run) noexcept nogil:
    """What that instruction answered."""
    return run.failed & ((<int64_t>1 << 40) - 1)
