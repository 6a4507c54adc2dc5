"""minidl: small neural networks, fast on a CPU, and written to be read.

Three readings, each of an afternoon (README.md has the files): the framework, from a layer
(``minidl/nn/layer.py``) by the arithmetic (``minidl/_kernels/twins``) to the ``Trainer``; the
kernels (``docs/kernels.md``, ``minidl/_kernels/loops``); the recorder (``docs/recording.md``,
``minidl/recording``).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minidl._version import __version__

if TYPE_CHECKING:
    from minidl import analysis, augment, datasets, models, nn, optim
    from minidl.diagnosis.diagnosing import diagnose
    from minidl.diagnosis.monitor import GradientMonitor
    from minidl.gradient_check import GradcheckError, GradcheckReport, gradcheck, gradcheck_all
    from minidl.recording import RecordingError, record
    from minidl.saving import ModelFileError, load, save
    from minidl.threads import get_num_threads, set_num_threads
    from minidl.training import Trainer, batches
    from minidl.warnings import TrainingWarning

__all__ = [
    "GradcheckError",
    "GradcheckReport",
    "GradientMonitor",
    "ModelFileError",
    "RecordingError",
    "Trainer",
    "TrainingWarning",
    "__version__",
    "analysis",
    "augment",
    "batches",
    "datasets",
    "diagnose",
    "get_num_threads",
    "gradcheck",
    "gradcheck_all",
    "load",
    "models",
    "nn",
    "optim",
    "record",
    "save",
    "set_num_threads",
]

# Modules that are loaded when one of their names is first asked for, so that `import minidl` takes
# a moment, and a program that predicts does not wait for what trains.
_HOMES = {
    "analysis": (),
    "augment": (),
    "c": (),
    "datasets": (),
    "diagnosis": ("GradientMonitor", "diagnose"),
    "gradient_check": ("GradcheckError", "GradcheckReport", "gradcheck", "gradcheck_all"),
    "models": (),
    "nn": (),
    "onnx": (),  # needs onnx
    "optim": (),
    "recording": ("RecordingError", "record"),
    "saving": ("ModelFileError", "load", "save"),
    "sklearn": (),  # needs scikit-learn
    "torch": (),  # needs PyTorch, in part
    "threads": ("get_num_threads", "set_num_threads"),
    "training": ("Trainer", "batches"),
    "warnings": ("TrainingWarning",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name == home or name in names:
            module = import_module(f"minidl.{home}")
            globals().update({public: getattr(module, public) for public in names})
            return module if name == home else globals()[name]
    raise AttributeError(f"module 'minidl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *__all__})
