"""Networks as C99: one file and one header, for a microcontroller or any other program.

The functions of the file allocate nothing and call nothing but math.h: weights are constants, and
the caller gives the memory. ``export`` writes them.

``program`` is a network as a list of C calls on arrays; ``emitters`` turns layers into these calls,
one function for each kind of layer, in ``activations``, ``layers``, ``pooling`` and
``recurrent``; ``memory`` gives each array its place; ``functions`` has the C functions that are
called; ``source`` puts everything into the two files.
"""

from minidl.c.export import Exported, export

__all__ = ["Exported", "export"]
