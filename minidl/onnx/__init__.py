"""Models as ONNX files, which other programs run and write: ``export`` and ``load``.

``layers`` and ``recurrent_layers`` say how each layer is written, ``readers`` and
``recurrent_readers`` what each operator becomes, ``patterns`` which layers are several operators.
This package needs onnx: ``pip install 'minidl[onnx]'``.
"""

from minidl.onnx.exporting import export
from minidl.onnx.loading import load

__all__ = ["export", "load"]
