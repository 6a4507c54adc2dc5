"""``from_torch`` and ``to_torch``. PyTorch is imported when one of them is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from minidl.nn.layer import Layer


def from_torch(module: Any) -> Layer:
    """Return a model of minidl's that computes what a module of PyTorch's does.

    y = module(x), with weights, running statistics and modes copied

    Taken are ``Sequential``, ``Linear``, ``BatchNorm1d``, ``LayerNorm``, ``RMSNorm``,
    ``Embedding``, ``Dropout``, ``Flatten``, ``Identity``, ``RNN``, ``LSTM``, ``GRU`` with
    ``batch_first=True``, their cells, and each activation that minidl has; of one and two
    dimensions ``Conv``, ``MaxPool``, ``AvgPool``, ``BatchNorm``, ``Dropout``, ``AdaptiveAvgPool``
    and ``AdaptiveMaxPool`` to one pixel, and ``Upsample`` by repetition, zeros before a ``Conv``
    (``ZeroPad``, ``ConstantPad``); also what ``to_torch`` returns. For another module, build the
    model in minidl and fill it by ``load_state_dict``.

    Networks for images come in a ``ChannelsFirst``, whose ``inner`` has the channels last.

    Parameters
    ----------
    module
        The module. Parameters that need no gradient, and those that it does without, such as the
        bias of a ``LayerNorm`` with ``bias=False``, are frozen in the model.

    Shapes
    ------
    Those of the module, images with the channels on axis 1. In a network without any layer for
    images, ``BatchNorm1d`` and ``PReLU`` take the features last: for inputs of two axes, this is
    the same.

    Raises
    ------
    ImportError
        Without PyTorch.
    TypeError, ValueError
        For a module, or an option of one, that minidl does not have; names it by its path.

    Examples
    --------
    >>> import torch, minidl.torch  # doctest: +SKIP
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh())  # doctest: +SKIP
    >>> minidl.torch.from_torch(module)  # doctest: +SKIP
    layer            output       parameters
    ----------------------------------------
    0 Linear(4, 3)   (batch, 3)           15
    1 Tanh()         (batch, 3)            0
    ----------------------------------------
    float32                               15
    """
    layer: Layer = _with_pytorch("from_modules").layer_of(module)
    layer.assign_paths()
    return layer


def to_torch(model: Layer) -> Any:
    """Return a module of PyTorch's that computes what a model does.

    module(x) = model(x), with weights, running statistics and modes copied

    Names of parameters are those of ``state_dict(model)``. What PyTorch has is taken from there.
    ``Residual`` and ``Parallel`` are modules of ``minidl.torch.branch_modules``; ``Standardize`` is
    one of ``minidl.torch.modules``, as are ``BatchNorm`` and ``PReLU`` with the features last, and
    recurrent layers, which return y alone unless they are given a state. Layers for images take the
    channels last there, too (``minidl.torch.image_modules``); those in a ``ChannelsFirst`` become
    PyTorch's own, such as ``Conv2d``. Where images are flattened, features are in PyTorch's order.

    Raises
    ------
    ImportError
        Without PyTorch.
    TypeError
        For a layer of the user's, naming it, and one in a ``ChannelsFirst`` that PyTorch has not.
    ValueError
        For a recurrent layer that is stateful, a branch with a name that PyTorch needs, and
        features of flattened images that the model both learns of and returns.

    Examples
    --------
    >>> import minidl.torch  # doctest: +SKIP
    >>> minidl.torch.to_torch(nn.Sequential(nn.Linear(4, 3), nn.Tanh()))  # doctest: +SKIP
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): Tanh()
    )
    """
    if not isinstance(model, Layer):
        raise TypeError(f"to_torch takes a model, got {model!r}")
    return _with_pytorch("to_modules").module_of(model)


def _with_pytorch(name: str) -> Any:
    """Return a module of this package that needs PyTorch."""
    try:
        import_module("torch")
    except ImportError:
        raise ImportError("minidl.torch needs PyTorch: pip install 'minidl[torch]'") from None
    return import_module(f"minidl.torch.{name}")
