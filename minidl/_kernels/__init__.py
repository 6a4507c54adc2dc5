"""All compiled code of minidl, and its NumPy twin.

**A kernel exists twice.** A file of ``twins/`` defines it in a few lines of NumPy, under a
signature that says what it reads, writes, checks and costs (``signature.py``). A file of
``loops/`` holds the same arithmetic as loops, which the compiler turns into vector instructions.
The twin is the definition, the oracle of the tests, the baseline of the benchmarks and a complete
backend.

**How a call travels.** ``kernels.relu(x)`` arrives in ``call.pyx``, which checks the arrays by the
signature, allocates the result and fills an argument struct (``arguments.pxd``). Calls that
consist of several kernels do so by hand in ``composites.pyx``, ``convolution.pyx`` and
``pooling.pyx``. ``run`` releases the GIL and calls the loop of the build that was chosen at import,
one for each dtype and instruction set; the loop computes its share of the outputs
(``loops/vector/partition.pxi``). Nothing below ``run`` knows Python: a call is a function pointer
and a struct. A recorded step is a list of such calls, which ``executor/`` runs.

**What each instruction set changes.** ``builds/loops.pxi`` includes all loops; the modules of
``builds/`` include it, and ``setup.py`` compiles each of them with other flags. What differs in
the source is in ``simd.h``: the width of ``vec`` and of the register tile.

========  ============  ============  ===================  ===========================
name      float32s in   tile, rows    compiled with        found on
          a ``vec``     by columns
========  ============  ============  ===================  ===========================
baseline  4             6 × 8         the default          any machine (NEON: 6 × 16)
avx2      8             6 × 16        AVX2, FMA            x86-64 since about 2013
avx512    16            6 × 64        AVX-512 F BW DQ VL   x86-64 servers; Zen 4 on
========  ============  ============  ===================  ===========================

The best one that this CPU has is chosen at import. ``MINIDL_ISA=baseline|avx2|avx512|reference``
overrides it.

**Where to read.** ``twins/``; then ``loops/elementwise.pxi``, the simplest loops; then
``loops/product/matmul.pxi``, the product in five loops around ``microkernel.pxi``, with
``blocking.pxi`` and ``packing.pxi``, ``algorithm.pxi``, which chooses another algorithm for skinny
matrices (``skinny.pxi``), and ``split_k.pxi`` for threads; ``loops/sequences.pxi``, which runs a
whole sequence with such products; ``loops/vector/vector_math.pxi`` for exp, log, tanh and their
like; and ``memory.py`` for how memory is aligned. ``docs/kernels.md`` derives ``matmul.pxi`` in
nine steps, each of which can be run and measured.

**The five loops,** with one of them in two halves. Each has a block that stays at one level of
memory while it is used: ::

    for jc in 0 … n by NC              NC columns of C           LOOP 5
      for pd in 0 … k by 4 KC          4 KC x NC of B: L2, L3    LOOP 4, outer half
        for ic in 0 … m by MC          ≤ MC x NC of C: L2        LOOP 3
          for pc in 0 … 4 KC by KC     MC x KC of A: L2          LOOP 4, inner half
            for jr in 0 … NC by NR     KC x NR of B: L1          LOOP 2
              for ir in 0 … MC by MR   MR x NR of C: registers   LOOP 1

**How to add a kernel.** Its twin with a signature in ``twins/``; its struct in ``arguments.pxd``,
unless one fits; its loop in ``loops/``, with a line at the end of the file that names both.
CONTRIBUTING.md shows an example. The tests compare it with its twin, on arguments that are drawn
from the signature, and ``minidl bench`` measures it.
"""

from __future__ import annotations

import sys
import threading
import warnings
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from typing import Any

from minidl import settings
from minidl._kernels import twins
from minidl._kernels.signature import KERNELS

# The public kernels are those that have a twin, in the order of the files of the twins.
FAMILIES = (
    *("products", "convolution", "elementwise", "activations", "normalization"),
    *("losses", "optimizers", "pooling", "sequences", "watching"),
)
NAMES = tuple(
    name
    for family in FAMILIES
    for name, kernel in KERNELS.items()
    if kernel.twin is not None and kernel.twin.__module__.endswith(family)
)

COMPOSITES = ("composites", "convolution", "pooling")  # modules of calls that are written by hand

isa = "reference"
why = ""
_obstacle = ""
_calls: dict[str, Any] = {}  # the kernel calls by name, of the selected instruction set
_served: list[dict[str, Any]] = []  # the namespaces that hold them


def available() -> list[str]:
    """List the instruction sets that are built and that this CPU has: the twin, then the worst."""
    dispatch = _dispatch()
    compiled = [] if dispatch is None else dispatch.supported()
    return [name for name in ("reference", *compiled) if _serves(name)]


def _serves(name: str) -> bool:
    """Whether kernels of this instruction set are built and this CPU runs them."""
    if name == "reference":
        return True
    if (dispatch := _dispatch()) is None:
        return False
    try:
        dispatch.load(name)
    except ImportError:
        return False
    return True


def select(name: str) -> None:
    """Have an instruction set, or ``reference``, serve all calls from now on."""
    global isa
    if not _serves(name):
        raise ValueError(f"instruction set {name!r} is not available; there are {available()}")
    if name != "reference":
        _dispatch().select(name)  # type: ignore[union-attr]
    _calls.update({call: getattr(twins, call) for call in NAMES})
    if name != "reference":
        _calls.update(_compiled_calls())
    for namespace in _served:
        namespace.update(_calls)
    isa = name
    note_change()


def _compiled_calls() -> dict[str, Any]:
    """Collect the calls that check arrays and run compiled loops."""
    call, *others = (import_module(f"{__name__}.{name}") for name in ("call", *COMPOSITES))
    by_hand = {name: value for module in (call, *others) for name, value in vars(module).items()}
    for name in NAMES:
        if KERNELS[name].composite and name not in by_hand:
            raise ImportError(
                f"kernel {name!r} has a twin with composite=True but no call in composites.pyx, "
                "convolution.pyx or pooling.pyx: build it (python setup.py build_ext --inplace), "
                "or set MINIDL_ISA=reference"
            )
    calls = {
        name: by_hand[name] if KERNELS[name].composite else call.CALLS[name].as_function()
        for name in NAMES
    }
    for name in NAMES:
        if KERNELS[name].composite:
            calls[name].__module__ = "minidl.kernels"  # where pickle looks for it
    return calls


def serve(namespace: dict[str, Any]) -> None:
    """Put the kernel calls into a module's namespace, now and at every later ``select``."""
    _served.append(namespace)
    namespace.update(_calls)


def describe() -> dict[str, str]:
    """Return what ``minidl doctor`` prints about the kernels."""
    facts = {"instruction set": isa, "why": why, "available": ", ".join(available())}
    if (dispatch := _dispatch()) is not None:
        facts["this CPU has"] = ", ".join(dispatch.supported())
        facts["compiler"], facts["compiler flags"] = dispatch.build(isa)
    return facts


def _dispatch() -> Any:
    """Import the compiled dispatcher; None where nothing was compiled or it cannot be loaded."""
    global _obstacle
    try:
        for name in COMPOSITES:
            import_module(f"{__name__}.{name}")
        return import_module(f"{__name__}.dispatch")
    except ModuleNotFoundError:
        _obstacle = "no compiled kernels were found"
    except ImportError as error:
        _obstacle = f"the compiled kernels could not be loaded ({error})"
    return None


def _choose() -> None:
    """Select the instruction set that MINIDL_ISA asks for, else the best."""
    global why
    if chosen := settings.instruction_set():
        if not _serves(chosen):
            raise settings.SettingError(
                f"MINIDL_ISA={chosen}: not available here; there are {available()}"
            )
        why = f"MINIDL_ISA={chosen}"
    else:
        compiled = [] if _compiled is None else _compiled.supported()
        # Lazily: worse instruction sets are not loaded.
        chosen = next(filter(_serves, reversed(["reference", *compiled])))
        why = "the best that is built and that this CPU has"
        if chosen == "reference":
            why = _obstacle or "the kernels of no instruction set were found"
            warnings.warn(_advice(Path(__file__).parents[1]), RuntimeWarning, stacklevel=2)
    select(chosen)


def _advice(folder: Path) -> str:
    """Say what to do where kernels are missing from the folder that was imported."""
    advice = (
        f"minidl runs on its NumPy twin, right but slower: {why}. It was imported from {folder}"
    )
    if (folder.parent / "setup.py").exists():
        advice += (
            ", a source folder, in which nothing is built and which hides an installed minidl: "
            "run Python from another folder, or build the kernels here with "
            f"`pip install --editable {folder.parent}`"
        )
    else:
        advice += ". Installing from source with a C compiler builds them"
    return f"{advice}. MINIDL_ISA=reference silences this."


# What layers, optimizers and recordings ask of a thread. The twin alone records nothing.
if (_compiled := _dispatch()) is not None:
    hooks = import_module(f"{__name__}.hooks")
    recorder, set_recorder = hooks.recorder, hooks.set_recorder
    watch, set_watch = hooks.watch, hooks.set_watch
    forward_pass, in_forward_pass = hooks.forward_pass, hooks.in_forward_pass
    is_batch = hooks.is_batch
    changes, note_change = hooks.changes, hooks.note_change
    address_of = hooks.address_of
    evaluating, is_evaluating = hooks.evaluating, hooks.is_evaluating
else:
    import numpy as np

    # step_call.py is compiled where it can be; here it runs as Python.
    _name = f"{__name__}.executor.step_call"
    _spec = spec_from_file_location(_name, Path(__file__).parent / "executor" / "step_call.py")
    sys.modules[_name] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_name])

    _thread = threading.local()

    def recorder() -> None:
        """Return None: nothing records the kernel calls of this thread."""

    def watch() -> Any:
        """What watches the steps that recorded functions make on this thread, or None."""
        return getattr(_thread, "watch", None)

    def set_watch(watch: Any) -> None:
        """Have these steps watched from now on; None ends it."""
        _thread.watch = watch

    def is_batch(x: Any, dtype: Any, features: int | None) -> bool:
        """Whether this is an array (batch, ..., features) of this dtype, no dimension empty."""
        if not isinstance(x, np.ndarray) or x.ndim < 2 or not x.size or x.dtype is not dtype:
            return False
        return features is None or x.shape[-1] == features

    def forward_pass() -> object:
        """Return the token of this thread's forward pass; None without one, False if evaluating."""
        token = getattr(_thread, "token", None)
        return False if token is not None and is_evaluating() else token

    def in_forward_pass(function: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Call the function; all that it calls on this thread is one forward pass."""
        try:
            _thread.token = object()
            return function(*inputs, **options)
        finally:
            _thread.token = None

    _change_count = count()

    def changes() -> int:
        """A number that is another at every call: nobody counts changes."""
        return next(_change_count)

    def note_change() -> None:
        """Do nothing: there are no recorded steps that a change could concern."""

    class evaluating:  # noqa: N801 - as the compiled one
        """Have every layer evaluate on this thread, whatever its mode: ``with evaluating():``."""

        def __enter__(self) -> None:
            _thread.evaluations = getattr(_thread, "evaluations", 0) + 1

        def __exit__(self, *error: object) -> None:
            _thread.evaluations -= 1

    def is_evaluating() -> bool:
        """Whether this thread is inside ``with evaluating():``."""
        return getattr(_thread, "evaluations", 0) > 0


_choose()
