"""The loop around a model: batches, training, evaluation, and what is seen of it.

Read ``trainer.py`` first, then ``epoch.py``; the rest serves them.

===============  ===========================================================================
module           what it does
===============  ===========================================================================
``trainer``      ``Trainer``: fit, predict, evaluate
``epoch``        one pass over the data, recorded as far as can be
``batching``     ``batches``: shuffled pieces of a data set
``preparing``    data into the dtype of the model, and all checks before training
``weighting``    weights of rows, from those of samples and of classes
``safety``       what a step must not leave behind: undoing a failed one, Ctrl-C between two
``diagnosis``    the first layer in which a number stopped being finite
``metrics``      what is measured beside the loss, and the sums over an epoch
``callbacks``    ``Callback``, ``EarlyStopping``: what a program does between epochs or steps
``tensorboard``  ``TensorBoard``: the history as event files
``history``      what ``fit`` returns
``curves``       its picture
``progress``     what ``fit`` shows meanwhile
===============  ===========================================================================
"""

from minidl.optim.schedules import ReduceOnPlateau
from minidl.training.batching import batches
from minidl.training.callbacks import Callback, EarlyStopping
from minidl.training.history import History
from minidl.training.metrics import accuracy
from minidl.training.progress import Progress
from minidl.training.tensorboard import TensorBoard
from minidl.training.trainer import Trainer

__all__ = [
    "Callback",
    "EarlyStopping",
    "History",
    "Progress",
    "ReduceOnPlateau",
    "TensorBoard",
    "Trainer",
    "accuracy",
    "batches",
]
