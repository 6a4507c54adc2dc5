"""State of a thread that layers, optimizers and recordings share.

A thread may have a recorder, which is notified of the arrays that kernel calls allocate and of the
kernels that run; a forward pass under way; and evaluation contexts.
"""

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from numpy cimport ndarray

cnp.import_array()

cdef extern from *:
    """
    /* The recorder of each thread. */
    static _Thread_local PyObject *RECORDER = NULL;
    /* A token for the outermost call of a layer under way; in_forward_pass keeps it alive. */
    static _Thread_local PyObject *FORWARD_PASS = NULL;
    /* How many `evaluating` contexts the thread is in. */
    static _Thread_local int EVALUATIONS = 0;
    /* What watches the steps of recorded functions that it calls, kept alive by whoever set it. */
    static _Thread_local PyObject *WATCH = NULL;
    """
    PyObject *WATCH
    PyObject *RECORDER
    PyObject *FORWARD_PASS
    int EVALUATIONS

cdef extern from "Python.h":
    ctypedef struct _View "Py_buffer":
        PyObject *obj
    ctypedef struct _Buffers "PyBufferProcs":
        int (*bf_getbuffer)(object array, _View *view, int flags) except -1
    ctypedef struct _Type "PyTypeObject":
        _Buffers *tp_as_buffer

cdef long CHANGES = 0


def watch():
    """What watches the steps that recorded functions make on this thread, or None."""
    return None if WATCH == NULL else <object>WATCH


def set_watch(watch):
    """Have these steps watched from now on; None ends it. The caller keeps the watch alive."""
    global WATCH
    WATCH = NULL if watch is None else <PyObject *>watch


cdef PyObject *current_watch() noexcept:
    """What watches the steps of this thread, or NULL; while it evaluates there are none."""
    return WATCH if EVALUATIONS == 0 else NULL


def recorder():
    """Return the recorder of this thread, or None."""
    return None if RECORDER == NULL else <object>RECORDER


def set_recorder(recorder):
    """Set the recorder of this thread, or None.

    Kernel calls use ``recorder.allocated(array)`` in place of every array that they allocate, and
    call ``recorder.called(kernel, function, args, scratch)`` before every kernel, which does not
    run if that returns True.
    """
    global RECORDER
    cdef PyObject *before = RECORDER
    if recorder is not None:
        Py_INCREF(recorder)
    RECORDER = NULL if recorder is None else <PyObject *>recorder
    if before != NULL:
        Py_DECREF(<object>before)


cdef class ArrayAttribute:
    """A descriptor for an array that objects keep under this name in their ``__dict__``.

    While a step is recorded, reading it gives the array that the recorder of this thread
    substitutes. Setting it has recorded steps check whether they are still valid.
    """

    cdef str name

    def __init__(self, str name not None):
        self.name = name

    def __get__(self, instance, owner):
        if instance is None:
            return self
        cdef dict held = instance.__dict__
        if self.name not in held:
            raise AttributeError(f"{type(instance).__name__} has no {self.name}")
        if RECORDER != NULL:
            return (<object>RECORDER).attribute(instance, self.name)
        return held[self.name]

    def __set__(self, instance, value):
        if RECORDER != NULL:
            (<object>RECORDER).refuse_to_replace(self.name)
        (<dict>instance.__dict__)[self.name] = value
        note_change()

    def __delete__(self, instance):
        del (<dict>instance.__dict__)[self.name]
        note_change()


cdef int _refuse_buffer(object array, _View *view, int flags) except -1:
    view.obj = NULL
    array.refuse_buffer()
    raise BufferError


def refuse_buffers(type cls not None):
    """Have objects of a class refuse their memory as a buffer: ``refuse_buffer()`` must raise."""
    (<_Type *>cls).tp_as_buffer.bf_getbuffer = _refuse_buffer


def forward_pass():
    """Return the token of the forward pass under way on this thread.

    It is None if there is none, and False if the thread is evaluating, so that nothing is kept for
    a backward pass.
    """
    if FORWARD_PASS == NULL:
        return None
    return <object>FORWARD_PASS if EVALUATIONS == 0 else False


def is_batch(x, dtype, features):
    """Whether x is a non-empty array (batch, ..., features) of this very dtype object.

    ``features`` may be None. Layers ask this at every call.
    """
    if not cnp.PyArray_Check(x):
        return False
    cdef ndarray array = <ndarray>x
    cdef int dimensions = cnp.PyArray_NDIM(array)
    if dimensions < 2 or cnp.PyArray_SIZE(array) == 0 or array.descr is not dtype:
        return False
    return features is None or cnp.PyArray_DIM(array, dimensions - 1) == features


def in_forward_pass(function, tuple inputs, dict options):
    """Call ``function(*inputs, **options)``; all that it calls on this thread is one forward pass.

    This is compiled because in Python a signal handler could run between any two lines.
    """
    global FORWARD_PASS
    token = object()
    FORWARD_PASS = <PyObject *>token
    try:
        return function(*inputs, **options)
    finally:
        FORWARD_PASS = NULL


def note_change():
    """Have recorded steps check whether they are still valid: something may have changed."""
    global CHANGES
    CHANGES += 1


cdef PyObject *current_recorder() noexcept:
    """Return the recorder of this thread, or NULL."""
    return RECORDER


cdef bint is_recording() noexcept:
    """Whether the calls of this thread are being recorded."""
    return RECORDER != NULL


cpdef long changes() noexcept:
    """Return a number that ``note_change`` changes, and that is odd while this thread evaluates."""
    return 2 * CHANGES + (EVALUATIONS > 0)


# Compiled, so that no signal handler runs between the change of the count and its block.
cdef class evaluating:
    """Have every layer evaluate on this thread, whatever its mode: ``with evaluating():``.

    Inside, ``layer.training`` reads False and nothing is kept for a backward pass. The modes of
    the layers are not touched, and other threads notice nothing. Contexts may be nested.

    Examples
    --------
    >>> from minidl import nn
    >>> dropout = nn.Dropout(0.5)
    >>> with nn.evaluating():
    ...     print(dropout.training)
    False
    >>> dropout.training
    True
    """

    def __enter__(self):
        global EVALUATIONS
        EVALUATIONS += 1

    def __exit__(self, *error):
        global EVALUATIONS
        EVALUATIONS -= 1


def is_evaluating():
    """Whether this thread is inside ``with evaluating():``."""
    return EVALUATIONS > 0


def address_of(ndarray x not None):
    """Return the address of the elements of an array."""
    return <size_t>cnp.PyArray_DATA(x)
