"""Small real data, shipped with the package, a reader for the format of MNIST, and sequences."""

from minidl.datasets.idx_file import idx
from minidl.datasets.long_memory import adding, copy_memory, sequential_digits
from minidl.datasets.optical_digits import Dataset, digits
from minidl.datasets.text import Characters, python_topics

__all__ = [
    "Characters",
    "Dataset",
    "adding",
    "copy_memory",
    "digits",
    "idx",
    "python_topics",
    "sequential_digits",
]
