"""Losses against integer class labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl import _kernels as kernels
from minidl._kernels.reference import Array
from minidl.nn.checks import check_number
from minidl.nn.losses import Loss


class _LabelLoss(Loss):
    """What losses against integer class labels share: their check, and the weights of classes.

    Parameters
    ----------
    reduction
        ``"mean"`` (weighted: divided by the sum of the weights) or ``"sum"``.
    class_weight
        A weight ≥ 0 for every class, not all zero: a row counts that of its label. For classes
        of which there are few examples.
    """

    takes_labels = True

    def __init__(self, reduction: str = "mean", class_weight: Any = None) -> None:
        super().__init__(reduction)
        if class_weight is not None:
            class_weight = np.array(class_weight, np.float64)
            good = class_weight.ndim == 1 and np.isfinite(class_weight).all()
            if not (good and (class_weight >= 0).all() and class_weight.any()):
                raise ValueError(
                    f"{type(self).__name__}: class_weight must be a weight for every class, "
                    f"finite, >= 0 and not all zero, got {class_weight!r}"
                )
        self._class_weight: Array | None = class_weight

    @property
    def class_weight(self) -> Array | None:
        """The weights of the classes, or None."""
        return self._class_weight

    def _class_weight_like(self, prediction: Array) -> Array | None:
        """The weights of the classes in the dtype of the prediction, known to a recorder."""
        if self._class_weight is None:
            return None
        if len(self._class_weight) != prediction.shape[1]:
            count, classes = len(self._class_weight), prediction.shape[1]
            raise ValueError(f"{self!r}: {count} class weights for {classes} classes")
        if self._class_weight.dtype != prediction.dtype:
            self._class_weight = self._class_weight.astype(prediction.dtype)
        if (recorder := kernels.recorder()) is not None:
            recorder.adopt("state", "class weights", self._class_weight)
        return self._class_weight

    def row_weights(self, target: Array, weight: Array | None = None) -> Array | None:
        """The weight of the row times that of its label."""
        if self._class_weight is None:
            return weight
        of_label = self._class_weight[target].astype(np.float64)
        return of_label if weight is None else of_label * weight

    def check_target(self, prediction: Array, target: Array) -> None:
        if prediction.ndim != 2:
            raise ValueError(f"{self!r}: logits must be (batch, classes), got {prediction.shape}")
        if target.dtype.kind not in "iu":
            raise ValueError(
                f"{self!r}: labels must be integers, got {target.dtype}; write labels.astype(int)"
            )
        if target.shape != prediction.shape[:1]:
            raise ValueError(
                f"{self!r}: expected labels of shape {prediction.shape[:1]}, got {target.shape}"
            )


class CrossEntropyLoss(_LabelLoss):
    """Cross entropy of softmax(logits) against class labels.

    L = -log softmax(z)_label = log Σ_j exp(z_j) - z_label,  dz = softmax(z) - onehot(label)

    With label smoothing ε, (1 - ε) · onehot(label) + ε / classes in place of onehot(label), so
    that logits need not grow forever (Szegedy et al. 2016, section 7). Weights of classes and
    smoothing are combined as in PyTorch.

    Parameters
    ----------
    reduction
        ``"mean"`` over the batch (weighted: divided by the sum of the weights) or ``"sum"``.
    class_weight
        A weight ≥ 0 for every class, not all zero: a row counts that of its label.
    label_smoothing
        ε in [0, 1).

    Shapes
    ------
    logits (batch, classes); labels (batch), integers in [0, classes).

    Raises
    ------
    ValueError
        For float labels or labels outside the classes, naming the first such row.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> loss = nn.CrossEntropyLoss()
    >>> f"{loss(np.zeros((2, 10)), np.array([3, 7])):.4f}"  # log 10
    '2.3026'
    >>> loss = nn.CrossEntropyLoss(class_weight=[1, 3], label_smoothing=0.1)
    >>> f"{loss(np.zeros((2, 2)), np.array([0, 1])):.4f}"
    '0.6931'
    """

    def __init__(
        self, reduction: str = "mean", class_weight: Any = None, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(reduction, class_weight)
        self.label_smoothing = check_number(
            "CrossEntropyLoss", "label_smoothing", label_smoothing, 0, 1
        )

    def forward(
        self, logits: Array, labels: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        classes = self._class_weight_like(logits)
        mean = self.reduction == "mean"
        return kernels.softmax_cross_entropy(
            logits, labels, mean, weight, classes, self.label_smoothing
        )

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 3)), np.array([0, 2, 1, 2])
        yield cls("sum"), rng.normal(size=(1, 5)), np.array([4])
        yield cls("mean", [1, 2, 0.5], 0.2), rng.normal(size=(4, 3)), np.array([0, 2, 1, 2])


class NLLLoss(_LabelLoss):
    """Negative log likelihood of class labels, from log probabilities.

    L = -log p_label,  dlog p = -onehot(label)

    ``CrossEntropyLoss`` is this after a log-softmax, in one step.

    Shapes
    ------
    log probabilities (batch, classes); labels (batch), integers in [0, classes).

    Raises
    ------
    ValueError
        For float labels or labels outside the classes, naming the first such row.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> float(nn.NLLLoss()(np.array([[-1.0, -2.0], [-3.0, -4.0]]), np.array([0, 1])))
    2.5
    """

    def forward(
        self, log_probabilities: Array, labels: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        classes = self._class_weight_like(log_probabilities)
        return kernels.nll(log_probabilities, labels, self.reduction == "mean", weight, classes)

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 3)), np.array([0, 2, 1, 2])
        yield cls("sum", [1, 2, 0.5]), rng.normal(size=(1, 3)), np.array([1])
