"""The loop around a model: batches, training, evaluation, and what is seen of it.

Read ``trainer.py`` first; the rest serves it.

==============  ============================================================================
module          what it does
==============  ============================================================================
``trainer``     ``Trainer``: fit, predict, evaluate
``batching``    ``batches``: shuffled pieces of a data set
``preparing``   data into the dtype of the model, and all checks before training
``safety``      what a step must not leave behind: undoing a failed one, Ctrl-C between two
``diagnosis``   the first layer in which a number stopped being finite
``metrics``     what is measured beside the loss, and the sums over an epoch
``history``     what ``fit`` returns
``progress``    what ``fit`` shows meanwhile
==============  ============================================================================
"""

from minidl.training.batching import batches
from minidl.training.history import History
from minidl.training.metrics import accuracy
from minidl.training.progress import Progress
from minidl.training.trainer import Trainer

__all__ = ["History", "Progress", "Trainer", "accuracy", "batches"]
