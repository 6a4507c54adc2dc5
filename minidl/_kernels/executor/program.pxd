from minidl._kernels.executor.autotune cimport ThreadChoice
from minidl._kernels.executor.execute cimport (
    CopySpan,
    EpochTables,
    Instruction,
    PointerPatch,
    Run,
)
from minidl._kernels.executor.lock cimport ProgramLock
from numpy cimport ndarray


cdef struct Span:
    # Memory from one address to another.
    char *begin
    char *end


cdef class RowOrder:
    cdef ndarray order
    cdef readonly Py_ssize_t rows


cdef class Names:
    cdef tuple holders, keys, values

    cpdef bint same(self) except -1


cdef class Program:
    cdef Instruction *code
    cdef Py_ssize_t length
    cdef char *args
    cdef CopySpan *state
    cdef PointerPatch *pointers      # room for those of an epoch
    cdef Span *owned                 # the program's memory and the persistent arrays, merged
    cdef int states, owned_count
    cdef bint changes_inputs
    cdef list kinds, patches, keep, copies_of_state
    cdef public ProgramLock lock
    cdef ThreadChoice choice
    cdef public bint always_team     # never try whether one thread is faster
    cdef readonly int used           # threads of the latest run
    cdef readonly int threads        # that any kernel is shared by, at most
    # What `recording` sets when it finds that the program is still valid:
    cdef public object result        # what a call returns, with the program's own arrays
    cdef public bint copies          # whether a call returns copies
    cdef public list scheduled       # groups of parameters whose learning rate each call sets
    cdef public Names names          # what the names in the function meant, or None
    cdef public long seen            # count of changes up to which the program is known to be valid
    # What watches the steps; the clock that says which are watched, or None if there is nothing to
    # note; how many steps by that clock a run makes; and the program of a watched step, or None
    # until it is needed.
    cdef public object watch
    cdef public ndarray clock
    cdef public Py_ssize_t advance
    cdef public Program watched
    cdef readonly Program latest     # of many steps, which of the two programs ran last

    cdef int own(self, list arrays) except -1
    cdef bint matches(self, tuple inputs, bint constants) except -1
    cdef bint lie_apart(self, tuple inputs) except -1
    cdef int check(self, tuple inputs) except -1
    cdef bint owns(self, Span span) noexcept
    cdef bint changes_apart(self, tuple inputs)
    cdef int point(self, tuple inputs) except -1
    cdef bint valid(self) except -1
    cpdef bint serves(self, tuple inputs) except -1
    cpdef object replay(self, tuple inputs)
    cdef void begin(self, Run *run) noexcept
    cdef void perform(self, Run *run)
    cdef bint tries(self, const Run *run) noexcept nogil
    cdef int choose_threads(self, Run *run) noexcept nogil
    cdef Py_ssize_t until_due(self) noexcept
    cdef bint can_be_watched(self) noexcept
    cdef void count(self, Py_ssize_t runs) noexcept
    cdef list enter_epoch(
        self, Run *run, EpochTables *tables, tuple sources, tuple targets, RowOrder order,
        Py_ssize_t rows, Py_ssize_t steps, list scalars, list outputs
    )
    cdef int check_steps(
        self, tuple sources, tuple targets, RowOrder order, Py_ssize_t rows, Py_ssize_t first,
        Py_ssize_t count
    ) except -1
    cdef bint only_read(self, Py_ssize_t number, ndarray source)
    cdef int aim(self, Run *run, Py_ssize_t number, ndarray source, ndarray target) except -1
