"""Models to and from PyTorch: as modules, and as state dicts.

``names`` says which tensors of PyTorch hold which parameters, ``state_dict`` reads and writes them;
``feature_order`` finds, by the ``layouts`` of arrays, where these are in another order, because
images are flattened. None of these needs PyTorch. ``from_modules`` and ``to_modules`` turn modules
into layers and layers into modules; ``modules``, ``image_modules`` and ``branch_modules`` have
those that PyTorch lacks, with the features last, as minidl has them. In ``channels_first`` and
``from_images`` are PyTorch's own for images, whose channels are on axis 1.
"""

from minidl.torch.convert import from_torch, to_torch
from minidl.torch.layouts import UnknownOrderError
from minidl.torch.state_dict import (
    Report,
    StateDictError,
    load_state_dict,
    save_state_dict,
    state_dict,
)

__all__ = [
    "Report",
    "StateDictError",
    "UnknownOrderError",
    "from_torch",
    "load_state_dict",
    "save_state_dict",
    "state_dict",
    "to_torch",
]
