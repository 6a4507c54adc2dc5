from minidl._kernels.executor.program cimport Program


cdef class StepCall:
    cdef public Program program
