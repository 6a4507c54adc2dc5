"""The loop around a model: batches, training, evaluation, and what is shown of it.

Read ``trainer.py`` and ``evaluator.py`` first, then ``epoch.py`` and ``steps.py``; the rest serves
them.

==================  ========================================================================
module              what it does
==================  ========================================================================
``trainer``         ``Trainer``: fit, save, load
``evaluator``       what it does without training: predict, evaluate
``plan``            what a fit was asked for, and where it is
``epoch``           one pass over the data, recorded as far as possible
``steps``           one step of training, eager or recorded
``batching``        ``batches``: a data set in shuffled batches
``inputs``          inputs of a model, from arrays, tables, tuples and sequences
``data``            a data set, checked and cast as a model and a loss take it
``weights``         weights of rows, from sample weights, class weights and padding
``preparation``     all rows of a fit or an evaluation, by the three modules above
``checks``          checks of the trainer's parts and of batch sizes
``interrupt``       undoing a step that failed, and Ctrl-C only between two steps
``nonfinite``       the first layer in which a number stopped being finite
``metrics``         what is measured beside the loss, and the sums over an epoch
``running_metrics`` metrics that take batch after batch: means, top k, errors, R²
``confusion``       those of the confusion matrix: precision, recall, F1
``score_metrics``   those of scores: area under the ROC curve, log loss, relative errors
``prediction``      the forward pass in evaluation, recorded for shapes that come often
``callbacks``       ``Callback``: what a program does between epochs or steps
``early_stopping``  ``EarlyStopping``
``checkpoint``      ``Checkpoint``: the training on disk, every few epochs or minutes
``resuming``        what is on disk, and how a training goes on from it
``tensorboard``     ``TensorBoard``: the history as event files
``progress``        ``Progress``: what ``fit`` shows while it trains
``history``         what ``fit`` returns
``plots``           its picture
==================  ========================================================================
"""

from minidl.optim.schedules import ReduceOnPlateau
from minidl.training.batching import batches
from minidl.training.callbacks import Callback
from minidl.training.checkpoint import Checkpoint
from minidl.training.confusion import (
    balanced_accuracy,
    confusion_matrix,
    f1,
    precision,
    recall,
)
from minidl.training.early_stopping import EarlyStopping
from minidl.training.history import History
from minidl.training.metrics import accuracy
from minidl.training.progress import Progress
from minidl.training.score_metrics import log_loss, mape, roc_auc
from minidl.training.tensorboard import TensorBoard
from minidl.training.trainer import Trainer

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "Progress",
    "ReduceOnPlateau",
    "TensorBoard",
    "Trainer",
    "accuracy",
    "balanced_accuracy",
    "batches",
    "confusion_matrix",
    "f1",
    "log_loss",
    "mape",
    "precision",
    "recall",
    "roc_auc",
]
