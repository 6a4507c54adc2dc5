"""Turn the arrays of a call into an argument struct, in the same way for all kernels.

``kernels.relu(x)`` calls ``call_kernel``, which follows the kernel's declaration
(``signature.py``): it checks every array, allocates the results, fills the struct, and has ``run``
call the compiled loop, without the GIL. While a step is recorded, the recorder of the thread is
notified of every array that is allocated and of every kernel that runs. Calls that consist of
several kernels are in ``composites.pyx``.
"""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.string cimport memcpy
from numpy cimport ndarray

from minidl._kernels.arguments cimport ADD, WRITE, COPY_DIMENSIONS, CopyArgs, kernel_fn
from minidl._kernels.hooks cimport current_recorder

import inspect
from importlib import import_module

from minidl._kernels.twins import OPTIMIZER_STATE
from minidl._kernels.twins.errors import RowError
from minidl._kernels.signature import KERNELS

cnp.import_array()

cdef extern from *:
    """
    /* For tests and benchmarks, by thread: how many shares its kernels are divided into, and how
       many times in a row they run. */
    static _Thread_local int SHARES = 1;
    static _Thread_local long REPEATS = 1;
    """
    int SHARES
    long REPEATS

cdef extern from "Python.h":
    enum: METH_FASTCALL, METH_KEYWORDS
    object PyCFunction_NewEx(PyMethodDef *method, object self, object module)
    PyObject *PyTuple_GET_ITEM(object items, Py_ssize_t place)

# A copy is no instance of a subclass, whose Python code could change the arrays of the call.
cdef int PLAIN_ARRAY = cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_ENSUREARRAY
cdef size_t ALIGNMENT = 64    # bytes: a cache line, and the widest vector
cdef dict DTYPES = {
    "": -1, "index": cnp.NPY_INTP, "double": cnp.NPY_FLOAT64, "uint32": cnp.NPY_UINT32,
    "uint64": cnp.NPY_UINT64, "OptimizerState": -2,
}
cdef object STATE = OPTIMIZER_STATE
cdef int[2] REALS = [cnp.NPY_FLOAT32, cnp.NPY_FLOAT64]


def set_shares(int shares):
    """Run every kernel that this thread calls as this many shares, one after the other.

    A share is what one thread of a team would compute; the tests use this to show that
    any number of them gives the same bits.
    """
    global SHARES
    if shares < 1:
        raise ValueError(f"shares must be >= 1, got {shares}")
    SHARES = shares


def set_repeats(long repeats):
    """Run every kernel that this thread calls this many times in a row, inside C.

    So benchmarks measure the kernel without the call from Python.
    """
    global REPEATS
    if repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {repeats}")
    REPEATS = repeats


def shares_and_repeats():
    """Return what ``set_shares`` and ``set_repeats`` have set for this thread."""
    return SHARES, REPEATS


# --- checks and allocation --------------------------------------------------------------

cdef int real_of(ndarray x) except -1:
    """Return the index of an array's dtype: 0 for float32, 1 for float64."""
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32:
        return 0
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64:
        return 1
    raise TypeError(f"expected a float32 or float64 array, got {x.dtype}")


cdef ndarray contiguous(ndarray x):
    """Return x if it is C-contiguous, aligned and in native byte order, else a copy that is."""
    if cnp.PyArray_ISCARRAY_RO(x):
        return x
    if current_recorder() != NULL:
        return copied(x)
    return cnp.PyArray_FROMANY(x, cnp.PyArray_TYPE(x), 0, 0, PLAIN_ARRAY)


cdef ndarray copied(ndarray x):
    """Copy an array by a kernel, so that a recorded step copies it, too."""
    cdef CopyArgs args
    cdef int i, real = real_of(x)
    cdef ndarray y
    if not cnp.PyArray_ISALIGNED(x) or cnp.PyArray_ISBYTESWAPPED(x):
        x = cnp.PyArray_FROMANY(x, cnp.PyArray_TYPE(x), 0, 0, PLAIN_ARRAY)
    if x.ndim > COPY_DIMENSIONS:
        raise ValueError(f"copy: {x.ndim} dimensions, more than {COPY_DIMENSIONS}")
    y = allocate_like(x)
    args.x, args.y, args.n = cnp.PyArray_DATA(x), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(x)
    args.dimensions = x.ndim
    for i in range(COPY_DIMENSIONS):
        args.shape[i] = x.shape[i] if i < x.ndim else 0
        args.strides[i] = x.strides[i] // cnp.PyArray_ITEMSIZE(x) if i < x.ndim else 0
    run(COPY, real, &args)
    return y


cdef ndarray check_like(ndarray x, ndarray like, str name):
    """Check that shape and dtype are those of another array; returns x, contiguous."""
    if cnp.PyArray_TYPE(x) != cnp.PyArray_TYPE(like):
        raise TypeError(f"{name} must be {like.dtype}, got {x.dtype}")
    if not cnp.PyArray_SAMESHAPE(x, like):
        raise ValueError(f"{name} must have shape {(<object>like).shape}, got {(<object>x).shape}")
    return contiguous(x)


cdef void *data_of(ndarray x) noexcept:
    """Return the address of an array; NULL for None."""
    return NULL if x is None else cnp.PyArray_DATA(x)


cdef ndarray check_shape(ndarray x, ndarray like, tuple shape, str name):
    """Check the shape, and that the dtype is that of another array; returns x, contiguous, or
    None for None."""
    if x is None:
        return None
    if cnp.PyArray_TYPE(x) != cnp.PyArray_TYPE(like):
        raise TypeError(f"{name} must be {like.dtype}, got {x.dtype}")
    if (<object>x).shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {(<object>x).shape}")
    return contiguous(x)


cdef ndarray check_writable(ndarray x, ndarray like, str name):
    """Check that x can be changed in place, and that its dtype is that of another array."""
    if cnp.PyArray_TYPE(x) != cnp.PyArray_TYPE(like):
        raise TypeError(f"{name} must be {like.dtype}, got {x.dtype}")
    if not cnp.PyArray_ISCARRAY(x):
        raise ValueError(f"{name} is changed in place: it must be C-contiguous and writeable")
    return x


cdef bint overlap(ndarray changed, ndarray other) noexcept:
    """Whether a contiguous array shares memory with another one, of any strides."""
    cdef char *begin = <char *>cnp.PyArray_DATA(changed)
    cdef char *low = <char *>cnp.PyArray_DATA(other)
    cdef char *high = low + cnp.PyArray_ITEMSIZE(other)
    cdef int i
    for i in range(other.ndim):
        if other.strides[i] < 0:
            low += (other.shape[i] - 1) * other.strides[i]
        else:
            high += (other.shape[i] - 1) * other.strides[i]
    return (
        low < begin + cnp.PyArray_NBYTES(changed) and begin < high and cnp.PyArray_SIZE(other) > 0
    )


cdef int check_no_overlap(ndarray changed, tuple others, str name) except -1:
    """Raise if an array that is changed in place shares memory with another argument."""
    for other in others:
        if overlap(changed, other):
            raise ValueError(f"{name} is changed in place and overlaps another argument")
    return 0


cdef ndarray whole_numbers(ndarray x, str name):
    """Convert x to the contiguous integers that kernels read."""
    if not cnp.PyArray_ISINTEGER(x):
        raise TypeError(f"{name} must be integers, got {x.dtype}")
    return cnp.PyArray_FROMANY(x, cnp.NPY_INTP, 0, 0, PLAIN_ARRAY | cnp.NPY_ARRAY_FORCECAST)


cdef ndarray lengths_of(ndarray lengths, Py_ssize_t batch, str name):
    """Check the shape and dtype of lengths; the kernel checks their values. None stays None."""
    if lengths is None:
        return None
    if lengths.ndim != 1 or lengths.shape[0] != batch:
        raise ValueError(
            f"{name}: lengths must have shape ({batch},), got {(<object>lengths).shape}"
        )
    return whole_numbers(lengths, f"{name}: lengths")


cdef ndarray allocate(int ndim, cnp.npy_intp *shape, int typenum):
    """Allocate a C-contiguous array, as all that kernels return."""
    cdef ndarray array = cnp.PyArray_EMPTY(ndim, shape, typenum, 0)
    cdef PyObject *recorder = current_recorder()
    if recorder != NULL:
        return (<object>recorder).allocated(array)
    return array


cdef ndarray allocate_shape(tuple shape, int typenum):
    """Allocate an array of this shape."""
    cdef cnp.npy_intp sizes[64]
    cdef int i, n = len(shape)
    if n > 64:
        raise ValueError(f"{n} dimensions are more than NumPy has")
    for i in range(n):
        sizes[i] = shape[i]
    return allocate(n, sizes, typenum)


cdef ndarray allocate_like(ndarray x):
    """Allocate a C-contiguous array of the shape and dtype of another."""
    return allocate(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x))


# --- running ----------------------------------------------------------------------------

cdef Py_ssize_t run(Call call, int real, void *args, size_t scratch=0) except -1:
    """Run a kernel and return its answer: 0, or a number that says what is wrong.

    ``scratch`` is how many bytes of scratch memory each thread needs. They are passed on
    to the recorder, because a recorded step has scratch memory of its own.
    """
    cdef Py_ssize_t answer, status = 0
    cdef int share
    cdef long _repeat
    cdef PyObject *recorder = current_recorder()
    cdef kernel_fn function = call.functions[real]
    if recorder != NULL and (<object>recorder).called(
        call.kernel, <size_t>function, PyBytes_FromStringAndSize(<char *>args, call.nbytes), scratch
    ):
        return 0
    with nogil:
        for _repeat in range(REPEATS):
            # The last share first: if one writes beyond its end, the next then does not hide that.
            for share in range(SHARES - 1, -1, -1):
                answer = function(args, share, SHARES)
                if answer > 0 and (status == 0 or answer < status):
                    status = answer
    return status


cdef Py_ssize_t run_with_scratch(
    Call call, int real, void *args, void **scratch, Py_ssize_t *step, size_t needed
) except -1:
    """Run a kernel with ``needed`` bytes of scratch memory for each thread.

    ``scratch`` and ``step`` point to the fields of args that receive its address, and the distance
    from one thread's part to the next.
    """
    cdef void *memory = PyMem_RawMalloc(needed * SHARES + ALIGNMENT)
    if memory == NULL:
        raise MemoryError
    scratch[0] = <void *>((<size_t>memory + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)
    step[0] = needed
    try:
        return run(call, real, args, needed)
    finally:
        PyMem_RawFree(memory)


# --- the call of a declared kernel ------------------------------------------------------

cdef class Call:
    def __init__(self, kernel):
        self.kernel, self.name = kernel, kernel.name
        self.method_name = self.name.encode()
        assert len(kernel.operands) <= MOST_OPERANDS and len(kernel.sizes) <= MOST_SIZES
        places = {size.name: place for place, size in enumerate(kernel.sizes)}
        kinds = {}
        self.nbytes = 8 * len(kernel.words)
        self.operand_count, self.size_count = len(kernel.operands), len(places)
        results = [operand for operand in kernel.operands if operand.is_result]
        assert not results or not all([operand.optional for operand in results])
        self.result_count = len(results)
        self.matrices = len(kernel.widest) > 1
        first = kernel.operands[0].sizes
        lead = first[0].name if first else ""
        for i, operand in enumerate(kernel.operands):
            self.parse(i, operand, places, lead, len(first))
            kinds[operand.name] = i
        for i, scalar in enumerate(kernel.scalars):
            if i < MOST_PARAMETERS:
                self.parse_scalar(i, scalar)
                kinds.setdefault(scalar.name, -1 - i)
        self.parameters = tuple(kernel.parameters)
        self.count = len(self.parameters)
        self.words = self.adding = self.nbytes // 8
        assert self.words <= MOST_WORDS
        self.adding -= len(kernel.accumulates)
        added = [operand for operand in kernel.operands if operand.mark == "+"]
        self.accumulate = WRITE if added and added[0].is_result else ADD
        self.changes = any([operand.mark in ("~", "+", "!") for operand in kernel.operands])
        if not kernel.composite and self.count <= MOST_PARAMETERS:
            for i, name in enumerate(self.parameters):
                self.parameter[i] = kinds[name]

    cdef int parse(self, int place, operand, dict places, str lead, int widest) except -1:
        cdef OperandOf *of = self.operands + place
        of.dtype = DTYPES[operand.dtype]
        of.dimensions = len(operand.sizes)
        assert of.dimensions <= MOST_DIMENSIONS
        for i, size in enumerate(operand.sizes):
            of.dimension[i].factor = size.factor
            of.dimension[i].size = places[size.name] if size.name else -2 if size.is_any else -1
            of.dimension[i].other = places[size.or_one] if size.or_one else -1
        of.leads = bool(lead and operand.sizes and operand.sizes[0].name == lead) and (
            of.dimensions >= widest
        )
        of.optional, of.changed = operand.optional, operand.mark in ("~", "+", "!")
        of.is_index = operand.dtype == "index"
        return 0

    cdef int parse_scalar(self, int place, scalar) except -1:
        cdef ScalarOf *of = self.scalars + place
        of.word, of.is_double = self.kernel.fields[scalar.name][0] // 8, scalar.kind == "double"
        of.bounded = bool(scalar.interval)
        if of.bounded:
            of.low, of.high = [float(end) for end in scalar.interval.strip("[()]").split(",")]
            of.above = scalar.interval.startswith("(")
            of.below = scalar.interval.endswith(")")
        return 0

    def __reduce__(self):
        # A function of as_function is pickled as an attribute of what this returns: loaded, it is
        # the kernel of this name, whichever build or twin then serves it.
        return import_module, ("minidl.kernels",)

    def set_functions(self, size_t float32, size_t float64):
        """Set the loops that serve this call."""
        self.functions = [<kernel_fn>float32, <kernel_fn>float64]

    def function(self, int real):
        """Return the address of the loop that serves float32 (0) or float64 (1)."""
        return <size_t>self.functions[real]

    def as_function(self):
        """Make a function with the name, parameters and documentation of the twin."""
        twin = self.kernel.twin
        signature = inspect.signature(twin)
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        self.defaults = tuple([p.default for p in bare])
        text = signature.replace(parameters=bare, return_annotation=signature.empty)
        self.doc = f"{self.name}{text}\n--\n\n{inspect.getdoc(twin)}".encode()
        self.method = PyMethodDef(
            self.method_name, <void *>call_kernel, METH_FASTCALL | METH_KEYWORDS, self.doc
        )
        return PyCFunction_NewEx(&self.method, self, "minidl.kernels")

    cdef int bind(
        self, PyObject **places, PyObject **given, Py_ssize_t count, PyObject *names
    ) except -1:
        """Put positional arguments, arguments by name and defaults into their places."""
        cdef Py_ssize_t i, place
        if count > self.count:
            plural = "" if self.count == 1 else "s"
            raise TypeError(f"{self.name}() takes {self.count} argument{plural}, got {count}")
        for i in range(self.count):
            places[i] = given[i] if i < count else NULL
        for i, name in enumerate(<tuple>names if names != NULL else ()):
            if name not in self.parameters:
                raise TypeError(f"{self.name}() has no parameter {name!r}: it takes "
                                f"{', '.join(self.parameters)}")
            place = self.parameters.index(name)
            if places[place] != NULL:
                raise TypeError(f"{self.name}() got {name} twice")
            places[place] = given[count + i]
        for i in range(self.count):
            if places[i] == NULL:
                if self.defaults[i] is inspect.Parameter.empty:
                    raise TypeError(f"{self.name}() misses its argument {self.parameters[i]}")
                places[i] = PyTuple_GET_ITEM(self.defaults, i)
        return 0

    cdef int take_number(self, ScalarOf *of, object value, size_t *words) except -1:
        """Put a scalar into its word of the struct."""
        cdef double number
        if not of.is_double:
            words[of.word] = bool(value)
            return 0
        number = value
        if of.bounded and not (
            (of.low < number if of.above else of.low <= number)
            and (number < of.high if of.below else number <= of.high)
        ):
            scalar = self.kernel.scalars[of - self.scalars]
            raise ValueError(
                f"{self.name}: {scalar.name} must be in {scalar.interval}, got {number}"
            )
        memcpy(words + of.word, &number, sizeof(number))
        return 0

    cdef int check_dtype(self, int place, ndarray array, int real) except -1:
        """Raise TypeError unless the operand may be of this dtype."""
        cdef int dtype = self.operands[place].dtype, typenum = cnp.PyArray_TYPE(array)
        operand = self.kernel.operands[place]
        if self.operands[place].is_index:
            if not cnp.PyArray_ISINTEGER(array):
                raise TypeError(f"{self.name}: {operand.name} must be integers, got {array.dtype}")
        elif dtype == -2:
            if array.dtype != STATE:
                raise TypeError(f"{self.name}: {operand.name} must be of dtype OPTIMIZER_STATE")
        elif typenum != (dtype if dtype >= 0 else REALS[real]):
            wanted = operand.dtype or ("float32", "float64")[real]
            raise TypeError(f"{self.name}: {operand.name} must be {wanted}, got {array.dtype}")
        return 0

    cdef bint fits(
        self, OperandOf *of, ndarray array, Py_ssize_t *sizes, ndarray first, int leading
    ) noexcept:
        """Whether a shape agrees with the sizes known so far; sizes that are new are entered.

        The first size of a kernel stands for the ``leading`` dimensions of its ``first`` operand.
        """
        cdef Dimension *dimension = of.dimension
        cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(array)
        cdef Py_ssize_t n
        cdef int i, ndim = cnp.PyArray_NDIM(array)
        if of.leads:
            if ndim != leading + of.dimensions - 1:
                return False
            n = 1
            for i in range(leading):
                if shape[i] != cnp.PyArray_DIM(first, i):
                    return False
                n *= shape[i]
            sizes[dimension.size] = n
            dimension, shape, ndim = dimension + 1, shape + leading, ndim - leading
        elif ndim != of.dimensions:
            return False
        for i in range(ndim):
            n = shape[i]
            if dimension[i].size == -2:
                continue
            if dimension[i].size == -1:
                if n != dimension[i].factor:
                    return False
                continue
            if n % dimension[i].factor:
                return False
            n //= dimension[i].factor
            if dimension[i].other >= 0 and n != 1 and n != sizes[dimension[i].other]:
                return False
            if sizes[dimension[i].size] >= 0 and sizes[dimension[i].size] != n:
                return False
            sizes[dimension[i].size] = n
        return True

    cdef misfit(self, int place, ndarray array, Py_ssize_t *sizes, ndarray first, int leading):
        """Make the error for an array of the wrong shape."""
        cdef OperandOf *of = self.operands + place
        wanted = []
        for i, size in enumerate(self.kernel.operands[place].sizes):
            if of.leads and i == 0:
                wanted += ["..."] if first is array else list((<object>first).shape[:leading])
            elif of.dimension[i].other >= 0:
                wanted.append(f"{sizes[of.dimension[i].other]} or 1")
            elif of.dimension[i].size < 0:
                wanted.append("any" if size.is_any else size.factor)
            elif sizes[of.dimension[i].size] >= 0 and first is not array:
                wanted.append(size.factor * sizes[of.dimension[i].size])
            else:
                wanted.append(f"{size.factor} * {size.name}" if size.factor > 1 else size.name)
        shape = ", ".join(map(str, wanted)) + "," * (len(wanted) == 1)
        return ValueError(
            f"{self.name}: {self.kernel.operands[place].name} must have shape ({shape}), "
            f"got {(<object>array).shape}"
        )

    cdef int check_apart(self, PyObject **arrays) except -1:
        """Raise if an operand that is changed in place shares memory with another argument."""
        cdef int i, j, arguments = self.operand_count - self.result_count
        for i in range(arguments):
            if not self.operands[i].changed or arrays[i] == NULL:
                continue
            for j in range(arguments):
                if j != i and arrays[j] != NULL and not (self.operands[j].changed and j < i):
                    if overlap(<ndarray>arrays[i], <ndarray>arrays[j]):
                        raise ValueError(
                            f"{self.name}: {self.kernel.operands[i].name} is changed in place and "
                            "overlaps another argument"
                        )
        return 0

    cdef ndarray result(
        self, OperandOf *of, Py_ssize_t *sizes, int real, ndarray first, int leading
    ):
        """Allocate a result."""
        cdef cnp.npy_intp shape[64]
        cdef int i, begin = 0, n = 0
        if of.leads:
            for i in range(leading):    # no memcpy: of no dimensions there is no address
                shape[i] = first.shape[i]
            begin, n = 1, leading
        for i in range(begin, of.dimensions):
            shape[n] = of.dimension[i].factor
            if of.dimension[i].size >= 0:
                shape[n] *= sizes[of.dimension[i].size]
            n += 1
        return allocate(n, shape, of.dtype if of.dtype >= 0 else REALS[real])

    cdef refused(self, Py_ssize_t answer, PyObject **given, Py_ssize_t *sizes):
        """Make the error for values that the kernel does not allow.

        It names the value among the arguments as they were ``given``, before any conversion.
        """
        operand = self.kernel.limited
        if operand is None:
            return ValueError(self.kernel.problem)
        names = [size.name for size in self.kernel.sizes]
        array = <ndarray>given[self.parameters.index(operand.name)]
        value = ndarray.item(array, answer - 1)
        limit = sizes[<int>names.index(operand.limit)]
        return RowError(operand.singular, answer - 1, value, limit, (<object>array).shape)


cdef object call_kernel(object holder, PyObject **given, Py_ssize_t count, PyObject *names):
    """Call a declared kernel on Python's arguments."""
    cdef Call self = <Call>holder
    cdef PyObject *places[MOST_PARAMETERS]
    cdef PyObject *arrays[MOST_OPERANDS]
    cdef Py_ssize_t sizes[MOST_SIZES]
    cdef size_t words[MOST_WORDS]
    cdef OperandOf *of
    cdef ndarray array, first = None
    cdef list held = None, results = None
    cdef int i, place, real = -1, leading = 0
    cdef Py_ssize_t answer
    if names != NULL or count != self.count:
        self.bind(places, given, count, names)
        given = places
    for i in range(self.size_count):
        sizes[i] = -1
    # Numbers first: converting one may run Python code, which may even resize an array.
    for i in range(self.count):
        place = self.parameter[i]
        if place < 0:
            self.take_number(self.scalars - 1 - place, <object>given[i], words)
    for i in range(self.count):
        place = self.parameter[i]
        if place < 0:
            continue
        of = self.operands + place
        arrays[place] = NULL
        if given[i] == <PyObject *>None and of.optional:
            words[place] = 0
            continue
        if not cnp.PyArray_Check(<object>given[i]):
            raise TypeError(
                f"{self.name}: {self.parameters[i]} must be an array, got {<object>given[i]!r}"
            )
        array = <ndarray>given[i]
        if real < 0 and of.dtype == -1:
            real = real_of(array)
        else:
            self.check_dtype(place, array, real)
        if first is None:
            first = array
            leading = max(0, cnp.PyArray_NDIM(array) - of.dimensions + 1)
        if not self.fits(of, array, sizes, first, leading):
            raise self.misfit(place, array, sizes, first, leading)
        if of.changed:
            if not cnp.PyArray_ISCARRAY(array):
                raise ValueError(
                    f"{self.name}: {self.parameters[i]} is changed in place: it must be "
                    "C-contiguous and writeable"
                )
        elif not cnp.PyArray_ISCARRAY_RO(array) or (
            of.is_index and cnp.PyArray_TYPE(array) != cnp.NPY_INTP
        ):
            array = whole_numbers(array, self.name) if of.is_index else contiguous(array)
            held = [array] if held is None else held + [array]    # until the kernel has run
        arrays[place] = <PyObject *>array
        words[place] = <size_t>cnp.PyArray_DATA(array)
    if self.changes:
        self.check_apart(arrays)
    for i in range(self.size_count):
        words[self.operand_count + i] = sizes[i]
        if self.matrices and sizes[i] == 0:
            raise ValueError(f"{self.name}: no dimension of {self.parameters[0]} may be empty, "
                             f"got shape {(<object>first).shape}")
    for i in range(self.operand_count - self.result_count, self.operand_count):
        of, words[i] = self.operands + i, 0
        if not of.optional:
            array = self.result(of, sizes, real, first, leading)
            words[i] = <size_t>cnp.PyArray_DATA(array)
            if self.result_count > 1:
                results = [array] if results is None else results + [array]
    for i in range(self.adding, self.words):
        words[i] = self.accumulate
    answer = run(self, max(real, 0), words)
    if answer != 0:
        raise self.refused(answer, given, sizes)
    if self.result_count == 0:
        return None
    if self.result_count == 1 or len(results) == 1:
        return array
    return tuple(results)


CALLS = {kernel.name: Call(kernel) for kernel in KERNELS.values() if kernel.signature}
cdef Call COPY = CALLS["copy"]


def copy(ndarray x not None):
    """y = x, C-contiguous."""
    return copied(x)
