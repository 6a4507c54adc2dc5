"""Losses against integer class labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from minidl import kernels
from minidl._kernels.twins.errors import RowError
from minidl.nn.checks import check_count, check_number
from minidl.nn.hooks import stand_in
from minidl.nn.losses import Loss
from minidl.typing import Array


class _LabelLoss(Loss):
    """What losses against integer class labels share: the check of labels, and class weights.

    Parameters
    ----------
    reduction
        ``"mean"`` (weighted: divided by the sum of the weights), ``"sum"`` or ``"none"``.
    class_weight
        A weight ≥ 0 for every class, not all zero: the weight of a row is that of its label. Rare
        classes may get larger ones.
    ignore_index
        The label of rows that are left out, such as -100 for padded tokens; None if every label
        must be a class.
    """

    takes_labels = True

    def __init__(
        self,
        reduction: str = "mean",
        class_weight: Any = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction)
        if ignore_index is not None:
            owner = type(self).__name__
            ignore_index = check_count(owner, "ignore_index", ignore_index, -(2**63))
        self.ignore_index = ignore_index
        if class_weight is not None:
            if isinstance(class_weight, Mapping):
                raise TypeError(
                    f"{type(self).__name__}: class_weight must be a list of a weight for every "
                    f"class, got {class_weight!r}; Trainer.fit takes a mapping"
                )
            class_weight = np.array(class_weight, np.float64)
            good = class_weight.ndim == 1 and np.isfinite(class_weight).all()
            if not (good and (class_weight >= 0).all() and class_weight.any()):
                raise ValueError(
                    f"{type(self).__name__}: class_weight must be a weight for every class, "
                    f"finite, >= 0 and not all zero, got {class_weight!r}"
                )
        self._class_weight: Array | None = class_weight
        self._cast_weights: dict[Any, Array] = {}  # by dtype

    @property
    def class_weight(self) -> Array | None:
        """The weights of the classes, or None."""
        return self._class_weight

    def _class_weight_like(self, prediction: Array) -> Array | None:
        """Return the class weights, in the dtype of the prediction, for a kernel to read."""
        if self._class_weight is None:
            return None
        dtype = prediction.dtype
        if dtype not in self._cast_weights:
            self._cast_weights[dtype] = self._class_weight.astype(dtype)
        return stand_in("state", "class weights", self._cast_weights[dtype])

    def settings(self) -> dict[str, Any]:
        found = super().settings()
        if self._class_weight is not None:
            found["class_weight"] = self._class_weight.tolist()
        if self.ignore_index is not None:
            found["ignore_index"] = self.ignore_index
        return found

    def by_rows(
        self, kernel: Callable[..., Any], prediction: Array, labels: Array, weight: Array | None
    ) -> tuple[Array, Array]:
        """Call the kernel with every step of a sequence as a row; return value and gradient."""
        if not prediction.flags.c_contiguous:
            prediction = kernels.copy(prediction)
        rows = prediction.reshape(-1, prediction.shape[-1])
        classes, mean = self._class_weight_like(prediction), self.reduction == "mean"
        weight = None if weight is None else weight.reshape(-1)
        given = rows, labels.reshape(-1), mean, weight, classes
        each = self.reduction == "none"
        try:
            value, gradient = kernel(*given, ignore_index=self.ignore_index, each=each)
        except RowError as error:
            raise error.at(labels.shape) from None
        except ValueError:
            ignored = self.ignore_index
            if ignored is not None and (labels == ignored).all():
                raise ValueError(
                    f"{self!r}: every label is {ignored}, which is ignored: no row is left"
                ) from None
            raise
        return value.reshape(labels.shape) if each else value, gradient.reshape(prediction.shape)

    def weighted_shape(self, prediction: Array) -> tuple[int, ...]:
        return prediction.shape[:-1]  # every step of a sequence has a weight

    def counts(self, labels: Array) -> Array | None:
        """Return which of the labels are not ignored; None without an ``ignore_index``."""
        return None if self.ignore_index is None else labels != self.ignore_index

    def row_weights(self, target: Array, weight: Array | None = None) -> Array | None:
        """Return the weight of each row times that of its label, which is 0 if it is ignored."""
        counts, of_class = self.counts(target), self._class_weight
        if counts is None and of_class is None:
            return weight
        labels = target if counts is None else np.where(counts, target, 0)
        of_label = np.ones(target.shape) if of_class is None else of_class[labels]
        of_label = of_label if counts is None else of_label * counts
        return of_label if weight is None else of_label * weight

    def check_target(self, prediction: Array, target: Array) -> None:
        if prediction.ndim < 2:
            raise ValueError(
                f"{self!r}: logits must be (batch, classes), or (batch, time, classes) of "
                f"sequences, got {prediction.shape}"
            )
        if target.dtype.kind not in "iu":
            raise ValueError(
                f"{self!r}: labels must be integers, got {target.dtype}; write labels.astype(int)"
            )
        if target.shape != prediction.shape[:-1]:
            raise ValueError(
                f"{self!r}: expected labels of shape {prediction.shape[:-1]}, got {target.shape}"
            )
        if self._class_weight is not None and len(self._class_weight) != prediction.shape[-1]:
            count, classes = len(self._class_weight), prediction.shape[-1]
            raise ValueError(f"{self!r}: {count} class weights for {classes} classes")


class CrossEntropyLoss(_LabelLoss):
    """Cross entropy of softmax(logits) against class labels.

    L = -log softmax(z)_label = log Σ_j exp(z_j) - z_label,  dz = softmax(z) - onehot(label)

    Label smoothing replaces onehot(label) by (1 - ε) · onehot(label) + ε / classes, so that logits
    need not grow forever (Szegedy et al. 2016, section 7). Class weights and smoothing are combined
    as in PyTorch.

    Parameters
    ----------
    reduction
        ``"mean"`` over the batch (weighted: divided by the sum of the weights), ``"sum"``, or
        ``"none"``: a loss for each label, times its weight.
    class_weight
        A weight ≥ 0 for every class, not all zero: the weight of a row is that of its label.
    label_smoothing
        ε in [0, 1).
    ignore_index
        The label of rows that are left out, whatever their logits, such as -100 for padded tokens:
        a mean is over the other rows. With None, the default (PyTorch's is -100), every label must
        be a class.

    Shapes
    ------
    logits (batch, classes); labels (batch), integers in [0, classes). Of sequences: logits
    (batch, time, classes), labels and weights (batch, time); the mean is over all steps.

    Raises
    ------
    ValueError
        For float labels or labels outside the classes, naming the first such row and step; and, but
        for the reduction ``"none"``, if every label is ignored.

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
    >>> loss = nn.CrossEntropyLoss(ignore_index=-100)
    >>> f"{loss(np.zeros((3, 10)), np.array([3, -100, -100])):.4f}"
    '2.3026'
    """

    def __init__(
        self,
        reduction: str = "mean",
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(reduction, class_weight, ignore_index)
        self.label_smoothing = check_number(
            "CrossEntropyLoss", "label_smoothing", label_smoothing, 0, 1
        )

    def forward(
        self, logits: Array, labels: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        kernel = partial(kernels.softmax_cross_entropy, smoothing=self.label_smoothing)
        return self.by_rows(kernel, logits, labels, weight)

    def settings(self) -> dict[str, Any]:
        smoothing = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        return super().settings() | smoothing

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 3)), np.array([0, 2, 1, 2])
        yield cls("sum"), rng.normal(size=(1, 5)), np.array([4])
        yield cls(), rng.normal(size=(2, 3, 4)), np.array([[0, 3, 1], [2, 2, 0]])
        yield cls("mean", [1, 2, 0.5], 0.2), rng.normal(size=(4, 3)), np.array([0, 2, 1, 2])
        ignoring = cls("mean", [1, 2, 0.5], 0.2, ignore_index=-100)
        yield ignoring, rng.normal(size=(4, 3)), np.array([0, 2, -100, 1])
        yield cls(ignore_index=0), rng.normal(size=(2, 3, 4)), np.array([[2, 3, 1], [2, 0, 0]])
        yield cls("none"), rng.normal(size=(4, 3)), np.array([0, 2, 1, 2])
        ignoring = cls("none", [1, 2, 0.5], 0.2, ignore_index=-100)
        yield ignoring, rng.normal(size=(2, 3, 3)), np.array([[0, -100, 1], [2, 2, -100]])


class NLLLoss(_LabelLoss):
    """Negative log likelihood of class labels, from log probabilities.

    L = -log p_label,  dlog p = -onehot(label)

    ``CrossEntropyLoss`` computes a log-softmax and this in one step, and describes the parameters.

    Shapes
    ------
    log probabilities (batch, classes); labels (batch), integers in [0, classes). Of sequences:
    (batch, time, classes) and (batch, time), as in ``CrossEntropyLoss``.

    Raises
    ------
    ValueError
        For float labels or labels outside the classes, naming the first such row and step.

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
        return self.by_rows(kernels.nll, log_probabilities, labels, weight)

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 3)), np.array([0, 2, 1, 2])
        yield cls("sum", [1, 2, 0.5]), rng.normal(size=(1, 3)), np.array([1])
        yield cls(ignore_index=-1), rng.normal(size=(4, 3)), np.array([0, -1, 1, -1])
        yield cls("none", [1, 2, 0.5]), rng.normal(size=(2, 2, 3)), np.array([[0, 2], [1, 1]])
