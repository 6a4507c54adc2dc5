"""Writing a network as C99."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from minidl.c import activations, branches, convolution, layers, pooling, recurrent
from minidl.c.emitters import emit
from minidl.c.memory import placed
from minidl.c.program import Program, Shape, Value
from minidl.c.source import Network, header_text, source_text
from minidl.files import AnyPath, as_path, replacing
from minidl.nn.checks import check_count
from minidl.nn.layer import Layer
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.nn.recurrent.sequence import Recurrent

# Importing them fills the table of emitters.
WITH_EMITTERS = activations, branches, convolution, layers, pooling, recurrent
# Headers of C, which one of the same name would hide from this source or another.
HEADERS = (
    "assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal "
    "stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath "
    "threads time uchar wchar wctype"
)


@dataclass(frozen=True)
class Exported:
    """What ``export`` has written, and what it takes on the device.

    Sizes are in bytes: ``flash`` of all constants, ``memory`` of what a call needs, ``state`` of
    what is kept from step to step. ``multiply_adds`` are those of one call.
    """

    source: Path
    header: Path
    flash: int
    memory: int
    state: int
    multiply_adds: int

    def __str__(self) -> str:
        return (
            f"{self.source.name}, {self.header.name}: {self.flash:,} bytes of constants, "
            f"{self.memory:,} of memory, {self.state:,} of state, "
            f"{self.multiply_adds:,} multiply-adds a call"
        )


def export(model: Layer, path: AnyPath, *, input_shape: Shape | None = None) -> Exported:
    """Write a network as C99: a file and its header, which compute what ``model.eval()`` does.

    y = model(x), one sample a call, in float32

    For ``net.c`` the function is ``net_predict(x, y, memory)``; the caller gives all three arrays,
    of the sizes ``NET_INPUT``, ``NET_OUTPUT`` and ``NET_MEMORY`` in ``net.h``. A recurrent network
    runs step by step, unless ``input_shape`` says how long its sequences are:
    ``net_start(state)``, then ``net_step(x, y, state, memory)`` for every step, where y is what the
    network gives for the sequence up to there.

    Nothing is allocated, and no other function is called than those of math.h. Weights are constant
    and may lie in flash memory. Of a network with an ``Embedding``, x holds integers, and the
    function returns -1 if one of them is no row of it, else 0.

    Parameters
    ----------
    model
        Layers of minidl's, in ``Sequential``, ``Residual`` and ``Parallel``, with one input. Images
        have their channels last, or in a ``ChannelsFirst`` first. Dropout does nothing, and
        BatchNorm takes its running statistics, whatever the mode. float64 is rounded to float32.
    path
        Where to write the source, such as ``"net.c"``: its name begins those of the functions. The
        header lies beside it.
    input_shape
        Shape of a sample, without the batch: (steps, features) for whole sequences. None for what
        the first layer takes; of a recurrent network that is one step.

    Raises
    ------
    TypeError
        For a layer that is not minidl's, naming it.
    ValueError
        For a path that does not end in .c or whose name is no name in C; for an input shape that
        does not fit or is not known; for weights that are not finite; for a layer that cannot run
        step by step.
    OSError
        If a file cannot be written.

    Shapes
    ------
    x of ``input_shape``, y of the shape of ``model(x[None])[0]``, both row by row.

    Examples
    --------
    >>> import minidl.c, pathlib, tempfile
    >>> from minidl import nn
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3), rng=0)
    >>> print(minidl.c.export(model, folder / "net.c"))
    net.c, net.h: 268 bytes of constants, 32 of memory, 0 of state, 56 multiply-adds a call
    """
    if not isinstance(model, Layer):
        raise TypeError(f"export takes a model, got {model!r}")
    source = as_path(path)
    name = _checked_name(source)
    recurs = any(isinstance(layer, Recurrent | RecurrentCell) for _, layer in model.layers())
    steps = recurs and input_shape is None
    program = Program(Value(0, _input_shape(model, input_shape, steps)), steps)
    output = _with_place(emit(model, program.input, program), program)
    places, memory = placed(program, output)
    network = Network(name, program, output, places, memory)
    header = source.with_suffix(".h")
    for file_path, text in ((source, source_text(network)), (header, header_text(network))):
        with replacing(file_path) as file:
            file.write(text.encode("ascii", "replace"))
    flash, state = network.flash, 4 * network.state
    return Exported(source, header, flash, 4 * memory, state, program.multiply_adds)


def _checked_name(path: Path) -> str:
    """Return the name of a file without its ending, if functions in C may have it."""
    name = path.stem
    if path.suffix != ".c":
        raise ValueError(
            f"export: expected a path that ends in .c, such as 'net.c', got {path.name!r}"
        )
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise ValueError(
            f"export: {path.name!r} gives the functions their name, which in C is a letter and "
            "then letters, digits or underscores"
        )
    if name.lower() in HEADERS.split():  # on some systems, capitals make no difference
        raise ValueError(
            f"export: {name}.h is a header of C, choose another name than {path.name!r}"
        )
    return name


def _input_shape(model: Layer, given: Shape | None, steps: bool) -> Shape:
    """Return the shape of a sample; of one step, with the axis of time."""
    if given is not None:
        if not isinstance(given, tuple | list) or not given:
            raise ValueError(f"export: input_shape is a tuple of one axis at least, got {given!r}")
        return tuple(check_count("export", "input_shape", size) for size in given)
    if model.takes_indices:
        return (1,)
    widths = (layer.in_features for _, layer in model.layers())
    width = next((width for width in widths if width is not None), None)
    if width is None:
        raise ValueError(
            f"export: {model.short_name()} takes inputs of any width; give input_shape, the shape "
            "of a sample"
        )
    return (1, width) if steps else (width,)


def _with_place(output: Value, program: Program) -> Value:
    """Return the output as an array of its own: the caller's input is copied, not passed on."""
    if output.number != program.input.number:
        return output
    y = program.new(*output.shape)
    program.comment = "the output is the input"
    program.run(f"copy({y.size}, $x, $y);", x=output, y=y)
    return y
