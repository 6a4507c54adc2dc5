"""minidl: small neural networks, fast on a CPU, readable in an afternoon."""

from minidl import datasets, nn, optim
from minidl._version import __version__
from minidl.gradcheck import GradcheckError, GradcheckReport, gradcheck, gradcheck_all
from minidl.recording import RecordingError, record
from minidl.saving import ModelFileError, load, save
from minidl.threads import get_num_threads, set_num_threads
from minidl.training import Trainer, batches

__all__ = [
    "GradcheckError",
    "GradcheckReport",
    "ModelFileError",
    "RecordingError",
    "Trainer",
    "__version__",
    "batches",
    "datasets",
    "get_num_threads",
    "gradcheck",
    "gradcheck_all",
    "load",
    "nn",
    "optim",
    "record",
    "save",
    "set_num_threads",
]
