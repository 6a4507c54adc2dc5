"""The history of a training for TensorBoard."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl.training.callbacks import Callback, Values

if TYPE_CHECKING:
    from minidl.training.trainer import Trainer

METHODS = ("add_scalar", "flush")  # of a writer
WRITERS = ("torch.utils.tensorboard", "tensorboardX")


class TensorBoard(Callback):
    """Write the values of every epoch, and the learning rate, as event files for TensorBoard.

    minidl writes no such files itself: ``torch.utils.tensorboard`` (which needs the package
    tensorboard) or ``tensorboardX`` does, whichever is installed. The charts are called
    ``loss/training``, ``loss/validation`` and so on, and stand side by side.

    Parameters
    ----------
    log_dir
        The folder of the event files.
    writer
        Or else an object with the methods ``add_scalar(tag, value, step)`` and ``flush()``, such
        as a ``SummaryWriter`` of the caller's.

    Raises
    ------
    ImportError
        If no writer is given, and neither package is installed.
    TypeError
        Unless exactly one of ``log_dir`` and ``writer`` is given.

    Notes
    -----
    Epochs are counted on from ``fit`` to ``fit``: one object draws one curve.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn, optim
    >>> from minidl.training import TensorBoard, Trainer
    >>> class Printer:
    ...     def add_scalar(self, tag, value, step):
    ...         print(tag, f"{value:.2f}", step)
    ...     def flush(self):
    ...         pass
    >>> layer = nn.Linear(1, 1, init=nn.init.constant(0.0), rng=0)
    >>> trainer = Trainer(layer, nn.MSELoss(), optim.SGD(layer.parameters(), lr=0.5))
    >>> x = np.ones((2, 1))
    >>> _ = trainer.fit(x, x, epochs=1, progress=False, callbacks=[TensorBoard(writer=Printer())])
    loss/training 1.00 1
    learning_rate 0.50 1
    """

    def __init__(self, log_dir: str | Path | None = None, writer: Any = None) -> None:
        self.writer = writer_of("TensorBoard", log_dir, writer)
        self.epochs = 0

    def on_epoch_end(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """Write the values of the epoch."""
        self.epochs += 1
        for name, value in values.items():
            part = "validation" if name.startswith("val_") else "training"
            self.writer.add_scalar(f"{name.removeprefix('val_')}/{part}", value, self.epochs)
        self.writer.add_scalar("learning_rate", trainer.optimizer.lr, self.epochs)
        self.writer.flush()


def writer_of(owner: str, log_dir: str | os.PathLike[str] | None, writer: Any) -> Any:
    """Return the writer that was given, or one of event files in a folder.

    Parameters
    ----------
    owner
        Who asks, as errors name it.
    log_dir, writer
        The folder, or else an object with the methods ``add_scalar(tag, value, step)`` and
        ``flush()``.
    """
    if (log_dir is None) == (writer is None):
        raise TypeError(f"{owner}: give either log_dir or writer")
    if writer is not None:
        if missing := [name for name in METHODS if not callable(getattr(writer, name, None))]:
            raise TypeError(f"{owner}: writer must have the method {missing[0]}, got {writer!r}")
        return writer
    if not isinstance(log_dir, (str, os.PathLike)):
        raise TypeError(f"{owner}: log_dir must be the path of a folder, got {log_dir!r}")
    for name in WRITERS:
        try:
            return import_module(name).SummaryWriter(str(log_dir))
        except ImportError:
            continue
    raise ImportError(
        f"{owner}(log_dir) needs torch and tensorboard, or tensorboardX: "
        "pip install tensorboardX; or give it a writer"
    )
