"""Models and optimizers on disk.

``model_file`` has ``save`` and ``load``. ``contents`` says which arrays of a model and an optimizer
are kept, and checks that a file has just these. ``tensor_file`` reads and writes the format.
``architecture`` describes what the layers of a model hold, ``rebuilding`` builds the model of that,
and ``fitness`` says whether its layers can be. ``packing`` is for what else a training needs.
"""

from minidl.saving.model_file import description, load, metadata, save
from minidl.saving.tensor_file import ModelFileError

__all__ = ["ModelFileError", "description", "load", "metadata", "save"]
