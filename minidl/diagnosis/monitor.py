"""GradientMonitor: what happens in every layer while a model trains."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from minidl import _kernels
from minidl.diagnosis.monitor_export import write_json_lines, write_scalars
from minidl.diagnosis.monitor_input import as_epochs, as_given, as_selection, check_watched
from minidl.diagnosis.monitor_report import as_html, report
from minidl.diagnosis.seen import Seen
from minidl.diagnosis.watch import Block, StepWatch, watched_layers
from minidl.diagnosis.words import counted
from minidl.nn import Layer, Loss
from minidl.nn.checks import check_count
from minidl.optim import Optimizer
from minidl.pictures import finished
from minidl.training.callbacks import Callback, Values
from minidl.training.tensorboard import writer_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A pass over the data ends with an epoch, but not before so many rows were seen: a unit that one
# row in a hundred activates is missed among 512 with a probability of 0.6 %.
LEAST_ROWS = 512
MOST_EVERY = 2**62  # its double is still a whole number of the executor's


class GradientMonitor(Seen, Callback):
    """Watches gradients, weights and outputs of every layer at some of the steps of a training.

    As a callback, ``trainer.fit(..., callbacks=[monitor])``; or around steps of one's own, eager or
    recorded: ``with monitor.watch(model, optimizer): step(x, y)``. Watched steps compute the same
    to the last bit.

    ``monitor[quantity]`` is an array (records, layers), NaN where a layer has no such quantity:

    - ``"gradient"``: ‖∂L/∂y‖ of the layer's output y; ``"gradient_ratio"``: divided by that of the
      last layer
    - ``"weight_gradient"``: ‖∂L/∂w‖ of its parameters; ``"weight"``: ‖w‖; ``"update"``: ‖Δw‖, what
      the step has changed; ``"update_ratio"``: ‖Δw‖ / ‖w‖
    - ``"mean"``, ``"deviation"`` of y, and ``"zeros"``, the share that is zero
    - ``"saturation"``: 1 - mean φ'(x) / max φ', the share of the derivative of a sigmoid, tanh or
      gate that is lost on its flat ends
    - ``"dead"``: the share of units that were zero for every row seen in this pass over the data
      and the one before

    Where a step accumulates batches, the gradient of y is that of their mean.

    Parameters
    ----------
    layers
        Paths of layers to watch, such as ``"2.body"``, which stands for all layers in it, or the
        layers themselves; by default all that compute: no containers, ``Dropout`` or ``Flatten``.
    every
        Steps from one that is watched to the next; the first one always is. Of more than 1024
        records every second is dropped, and from then on every second step is watched of those
        that were: memory is constant.

    Examples
    --------
    >>> from minidl import GradientMonitor, Trainer, datasets, nn, optim
    >>> data = datasets.digits()
    >>> layers = [layer for _ in range(8) for layer in (nn.Linear(64, 64), nn.Sigmoid())]
    >>> model = nn.Sequential(*layers, nn.Linear(64, 10), rng=0)
    >>> trainer = Trainer(
    ...     model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), rng=0
    ... )
    >>> monitor = GradientMonitor(every=10)
    >>> _ = trainer.fit(data.x_train, data.y_train, epochs=1, progress=False, callbacks=[monitor])
    >>> monitor.steps[:3].tolist(), len(monitor.layers)
    ([1, 11, 21], 17)
    >>> bool(monitor["gradient_ratio"][0, 0] < 1e-3)  # it vanishes
    True
    """

    value_names: tuple[str, ...] = ("gradient_norm", "clip_factor", "learning_rate")

    def __init__(self, layers: Iterable[str | Layer] | None = None, every: int = 20) -> None:
        self._every = check_count("GradientMonitor", "every", every)
        if every > MOST_EVERY:
            raise ValueError(f"GradientMonitor: every must be <= {MOST_EVERY}, got {every}")
        self._chosen = as_selection(layers)
        super().__init__()
        self._changes = -1  # what _kernels.changes() said when the layers were looked for
        self._pass_began = 0  # steps made when the pass over the data began

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._changes = -1  # another process has counted other changes

    @property
    def every(self) -> int:
        """Steps from one that is watched to the next, as it was given."""
        return self._every

    # --- watching ---

    def watch(self, model: Layer, optimizer: Optimizer, loss: Loss | None = None) -> Block:
        """Return a context in which the steps of an optimizer are watched.

        Parameters
        ----------
        model, optimizer
            Whose steps they are.
        loss
            Its values are noted as well, if it is given: of the step, not of validation.

        Raises
        ------
        TypeError
            For what is no model, optimizer or loss.
        ValueError
            For an optimizer that trains none of the model's parameters, and if the model has no
            layer to watch, or none of those chosen.
        RuntimeError
            On entering it: if a block of this monitor is entered already.

        Examples
        --------
        >>> import numpy as np
        >>> from minidl import GradientMonitor, nn, optim
        >>> model, loss = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), rng=0), nn.MSELoss()
        >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
        >>> x = np.ones((5, 3), np.float32)
        >>> monitor = GradientMonitor(every=1)
        >>> with monitor.watch(model, optimizer, loss):
        ...     for _ in range(4):
        ...         value = loss(model(x), x[:, :2])
        ...         optimizer.zero_grad()
        ...         dx = model.backward(loss.backward())
        ...         norm = optimizer.step()
        >>> monitor["gradient"].shape, bool(monitor.scalars["norm"][3] == norm)
        ((4, 2), True)
        """
        check_watched(model, optimizer, loss)
        self._end_pass()
        return Block(self, self.step_watch(model, optimizer, loss))

    def step_watch(self, model: Layer, optimizer: Optimizer, loss: Loss | None) -> StepWatch:
        """Return what watches the steps of these parts: with another model, it begins anew."""
        known, changes = self._watch, _kernels.changes()
        if known is not None and known.monitor is not None:  # inside its block
            if known.optimizer is not optimizer:
                raise RuntimeError(
                    "GradientMonitor: inside its block it watches the steps of one optimizer only"
                )
            return known
        if known is not None and known.is_of(model, optimizer, loss) and changes == self._changes:
            return known
        layers, self._changes = self._choose(model), changes
        if (
            known is not None
            and known.is_of(model, optimizer, loss)
            and all(a is b for (_, a), (_, b) in zip(layers, known.layers, strict=False))
            and len(layers) == len(known.layers)
        ):
            return known
        notes = known.notes if known is not None and known.model is model else None
        self._watch = StepWatch(model, optimizer, loss, layers, self.every, notes)
        if self._watch.notes is not notes:
            self._ends, self._pass_began = [], 0
        return self._watch

    def _choose(self, model: Layer) -> list[tuple[str, Layer]]:
        """List (path, layer) of what is to be watched."""
        known = watched_layers(model)
        if self._chosen is None:
            return known
        named = ", ".join(path or '""' for path, _ in known)
        chosen: set[int] = set()
        by_path = dict(model.layers())
        for given in self._chosen:
            layer = by_path.get(given) if isinstance(given, str) else given
            if layer is None or not any(layer is inner for inner in by_path.values()):
                raise ValueError(
                    f"GradientMonitor: the model has no layer {as_given(given)}; it has {named}"
                )
            chosen |= {id(inner) for _, inner in layer.layers()}
        found = [(path, layer) for path, layer in known if id(layer) in chosen]
        if not found:
            raise ValueError(
                f"GradientMonitor: layers=[{', '.join(map(as_given, self._chosen))}] leaves "
                f"nothing to watch; choose from {named}"
            )
        return found

    def _end_pass(self) -> None:
        """Begin a new pass over the data, if the one that ends has seen rows enough."""
        if self._watch is None or not self._watch.clock.steps:
            return
        clock = self._watch.clock
        seen = (clock.steps - self._pass_began) / clock.every * self._rows()
        if seen >= LEAST_ROWS:
            self._pass_began = clock.steps
            self._watch.notes.begin_pass()

    def _rows(self) -> float:
        """How many rows a watched step has."""
        assert self._watch is not None
        return self._watch.notes.rows

    def clear(self) -> None:
        """Drop all records, and count steps from 1 again."""
        self._ends, self._pass_began = [], 0
        if self._watch is not None:
            self._watch.clear()
            self._watch.notes.begin_anew(self.every)

    # --- as a callback ---

    def on_epoch_end(self, trainer: Any, epoch: int, values: Values) -> None:
        """Note where the epoch ends."""
        if self._watch is not None:
            self._ends.append(self._watch.clock.steps)
            self._end_pass()

    def epoch_values(self, optimizer: Optimizer) -> dict[str, float]:
        """Return what stands in ``History`` for the epoch that ends.

        The mean norm and clip factor of its watched steps, or those of its last step where none was
        watched; and the learning rate of the last step.
        """
        state = optimizer.states[0]
        found = [float(state["norm"]), float(state["scale"]), float(state["learning_rate"])]
        begin = self._ends[-1] if self._ends else 0
        recent = self.steps > begin
        if recent.any():
            scalars = self.scalars
            found[:2] = (float(scalars[name][recent].mean()) for name in ("norm", "clip_factor"))
        return dict(zip(GradientMonitor.value_names, found, strict=True))

    # --- for readers and for other programs ---

    def report(self) -> str:
        """Return a table of all layers, at the first record and the last, and what stands out."""
        return report(self) if len(self) else repr(self)

    def plot(
        self, path: str | os.PathLike[str] | None = None, epochs: Iterable[int] | None = None
    ) -> Figure:
        """Draw the gradient of every layer and step as a heat map, and over depth at some epochs.

        Recurrent layers also over time.

        Parameters
        ----------
        path
            A file to write the picture to, in the format of its suffix (.png, .pdf, .svg), if any.
        epochs
            Whose gradients are drawn over depth and time; 0 is the first step, before any training.
            By default 0 and up to four others.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook shows it; it belongs to no window.

        Raises
        ------
        ImportError
            Without matplotlib.
        TypeError
            If ``epochs`` are no list of whole numbers.
        ValueError
            Without a record or an epoch, and for an epoch of which no step was watched.
        OSError
            If the file cannot be written.
        """
        if not len(self):
            raise ValueError("there is nothing to draw: no step was watched yet")
        if epochs is not None:
            epochs = as_epochs(epochs)
        from minidl.diagnosis.monitor_plot import draw  # loaded when first needed

        return finished(draw(self, epochs), path)

    def to_json_lines(self, path: str | os.PathLike[str], totals_only: bool = False) -> None:
        """Write a JSON object for each record to a file, one a line.

        Keys are ``step``, ``epoch``, those of ``scalars``, ``layers``, and of recurrent layers
        ``over_time`` and ``gates``; null is what is no finite number. With ``totals_only`` there
        is nothing of single layers. Without a record the file is empty.

        Parameters
        ----------
        path
            The file.
        totals_only
            Whether to leave single layers out.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        write_json_lines(self, path, totals_only)

    def to_tensorboard(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        writer: Any = None,
        totals_only: bool = False,
    ) -> None:
        """Write all records as scalars for TensorBoard, such as ``gradient/0`` and ``step/norm``.

        Parameters
        ----------
        log_dir
            Folder of the event files, which tensorboardX or torch writes.
        writer
            Or else an object with the methods ``add_scalar(tag, value, step)`` and ``flush()``.
        totals_only
            Whether to leave single layers out.

        Raises
        ------
        ImportError
            If no writer is given, and no package is installed that has one.
        """
        write_scalars(self, writer_of("to_tensorboard", log_dir, writer), totals_only)

    def _repr_html_(self) -> str:
        if not len(self):
            return f"<p>{html.escape(repr(self))}</p>"
        try:
            return as_html(self, vars(self.plot())["_repr_png_"]())
        except ImportError:
            return as_html(self, None)

    def __repr__(self) -> str:
        layers, records = counted(len(self.layers), "layer"), counted(len(self), "record")
        return f"GradientMonitor({layers}, {records})"
