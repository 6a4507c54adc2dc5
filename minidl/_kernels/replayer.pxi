# From a call in Python to a program.

cdef class Replayer:
    """What is called like a function: runs ``program`` if that was made for these inputs.

    Whatever else there is to do is done by ``otherwise(program, failed, inputs)`` of a subclass,
    where ``failed`` is what ``program.replay`` returned, or -1 if there is no program; arguments
    that were given by name it is first asked to put in their places: ``by_place(inputs, named)``.
    """

    cdef public Program program

    def __call__(self, *inputs, **named):
        cdef Program program = self.program    # once: another thread may set another one
        cdef Py_ssize_t failed = -1
        if named:
            inputs = self.by_place(inputs, named)
        if program is not None and not is_recording():
            failed = program.replay(inputs)
            if failed == 0:
                return program.result
        return self.otherwise(program, failed, inputs)
