"""The recorded step that users see: calls, epochs, listing and profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl import _kernels
from minidl.nn.nonfinite import check_finite, is_finite
from minidl.recording.epoch import arrays_of, order_of, run_epoch
from minidl.recording.guards import RecordingError
from minidl.recording.inputs import prepared
from minidl.recording.names import names_of
from minidl.recording.recorded_function import RecordedFunction
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minidl.profiling.step_profile import Profile


class Step(RecordedFunction):
    """A recorded function; made by ``record``.

    One program serves one combination of the inputs' shapes and dtypes and the modes of the
    layers; another combination is recorded when it first comes.
    """

    def epoch(
        self,
        X: Array | tuple[Array, ...] | dict[str, Array],
        Y: Array | tuple[Array, ...] | dict[str, Array] | None,
        batch_size: int,
        rng: Any = None,
        shuffle: bool = True,
        per_step: bool = False,
    ) -> Any:
        """Run the step over all rows of X and Y, a batch at a time, in one call.

        The batches are gathered in C, or read in place if rows come in order. The last one may be
        smaller, and is then recorded apart. Ctrl-C stops the epoch between two steps.

        Parameters
        ----------
        X, Y
            Inputs of the step, for all rows: arrays, tuples or dicts of arrays, with as many rows
            each. ``epoch(X, Y, ...)`` calls ``function(x, y)`` with batches of them,
            ``epoch((X1, X2), Y, ...)`` calls ``function(x1, x2, y)``, and
            ``epoch(X, None, ...)`` calls ``function(x)``. The keys of a dict are the names of the
            function's arguments. The function returns the loss, or a
            tuple, list or dict that begins with the loss.
        batch_size
            Rows of a step, ≥ 1.
        rng
            Generator or seed of the order of rows, which is that of ``minidl.batches``.
        shuffle
            Whether the order is random.
        per_step
            Whether to return the results of every step. A number of each step becomes an array
            with an element for each step; an array with a row for each row of the batch becomes an
            array with a row for each row of X, in the order in which the rows were taken.

        Shapes
        ------
        X (samples, ...), Y (samples, ...), and so for each array of a tuple or dict.

        Returns
        -------
        float
            The mean of the losses, weighted with the rows of their batches. With ``per_step``, the
            results of all steps instead.

        Raises
        ------
        FloatingPointError
            At the first step whose loss or gradient is not finite, naming the step and the layer;
            all parameters and state are as before this step. After the last one, if a parameter
            or a layer's state is not finite.
        """
        if _kernels.recorder() is not None:
            raise RecordingError("a recorded function cannot run the epochs of another")
        arrays = arrays_of(X, Y, self.function)
        order = order_of(len(arrays[0]), batch_size, rng, shuffle)
        watch = _kernels.watch()
        kept = run_epoch(self, arrays, batch_size, order, None if per_step else 1, watch=watch)
        if self._latest is None or not all(map(is_finite, self._latest.trained)):
            models = self._watched or [value for *_, value in names_of(self.function)]
            check_finite(models, "after the last step of the epoch")
        return kept.output() if per_step else kept.mean_loss()

    # --- look inside ---

    @property
    def programs(self) -> int:
        """Number of programs: one for each combination of shapes, dtypes and modes seen."""
        return len(self._programs)

    @property
    def memory(self) -> int:
        """Bytes that all programs of this step use beyond parameters and state: results of kernels,
        and scratch memory.
        """
        return sum(recorded.workspace.nbytes for recorded in self._programs.values())

    def __str__(self) -> str:
        """List the programs: every kernel with its operands, by layer and role."""
        if not self._programs:
            return f"{self!r}: nothing recorded yet"
        from minidl.profiling.step_report import listing  # needs compiled kernels

        return "\n\n".join(map(listing, self._programs.values()))

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", repr(self.function))
        return f"<recorded {name}, {len(self._programs)} programs>"

    def profile(self, *inputs: Any, rounds: int = 200) -> Profile:
        """Time every kernel of the step on these inputs.

        This runs the step ``rounds`` times: a training step trains.

        Parameters
        ----------
        *inputs
            Arguments of the step, as for a call.
        rounds
            How many times to run it; the median of each kernel is reported.

        Returns
        -------
        Profile
            Prints as a table: kernel, shape, microseconds, share of the time, rate, and the
            fraction of what this machine can do at most. ``profile.plot(FILE)`` draws it.
        """
        self(*inputs)
        if self._latest is None:
            raise RecordingError("there is nothing to profile: the NumPy twin records nothing")
        from minidl.profiling.step_profile import take_profile  # needs compiled kernels

        inputs = tuple(prepared(number, x) for number, x in enumerate(inputs))
        return take_profile(self._latest, inputs, rounds)

    def plot(self, path: str | Path | None, *inputs: Any, rounds: int = 200) -> Figure:
        """Draw the profile of the step on these inputs as bars; save it if there is a path."""
        return self.profile(*inputs, rounds=rounds).plot(path)
