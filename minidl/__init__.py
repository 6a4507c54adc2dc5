"""minidl: small neural networks, fast on a CPU, readable in an afternoon."""

from minidl import datasets, nn, optim
from minidl._version import __version__
from minidl.gradcheck import GradcheckError, GradcheckReport, gradcheck, gradcheck_all
from minidl.saving import ModelFileError, load, save
from minidl.training import Trainer, batches

__all__ = [
    "GradcheckError",
    "GradcheckReport",
    "ModelFileError",
    "Trainer",
    "__version__",
    "batches",
    "datasets",
    "gradcheck",
    "gradcheck_all",
    "load",
    "nn",
    "optim",
    "save",
]
