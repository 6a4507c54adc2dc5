"""Jacobians, curvatures, slices of the loss, range tests, traced passes, maps of images.

Every tool works on a copy: the parameters, gradients and state of the model stay as they are.
Derivatives of derivatives, and Jacobians, are computed in float64.
"""

from minidl.analysis.curvature import hessian_vector_product, largest_curvature, sharpest_direction
from minidl.analysis.feature_maps import FeatureMaps, feature_maps
from minidl.analysis.jacobians import jacobian
from minidl.analysis.mean_field import kappa, mean_squares
from minidl.analysis.rate_range import LearningRateRange, learning_rate_range
from minidl.analysis.slices import LossSlice, loss_slice
from minidl.analysis.tracing import Trace, TracedStep, trace

__all__ = [
    "FeatureMaps",
    "LearningRateRange",
    "LossSlice",
    "Trace",
    "TracedStep",
    "feature_maps",
    "hessian_vector_product",
    "jacobian",
    "kappa",
    "largest_curvature",
    "learning_rate_range",
    "loss_slice",
    "mean_squares",
    "sharpest_direction",
    "trace",
]
