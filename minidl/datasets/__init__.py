"""Small real data, shipped with the package, and a reader for the format of MNIST."""

from minidl.datasets.idx_file import idx
from minidl.datasets.optical_digits import Dataset, digits

__all__ = ["Dataset", "digits", "idx"]
