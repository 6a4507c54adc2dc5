"""Models as ONNX files, which other programs run and write: ``export`` and ``load``.

``layers`` and ``recurrent_layers`` say how each layer is written, ``readers``,
``recurrent_readers`` and ``channel_readers`` what each operator becomes, ``patterns`` which layers
are several operators. ``adapters`` has the layers that only loaded graphs need, ``adapter_layers``
how these are written.
This package needs onnx: ``pip install 'minidl[onnx]'``.
"""

from minidl.onnx.exporting import export
from minidl.onnx.loading import load

__all__ = ["export", "load"]
