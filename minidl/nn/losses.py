"""Losses: one number from predictions and targets, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from minidl import kernels
from minidl.nn.checks import POSITIVE, check_choice, check_number
from minidl.nn.hooks import (
    InvalidatesRecordings,
    is_evaluating,
    kept_by,
    run_forward,
    stand_in,
)
from minidl.typing import Array


class Loss(InvalidatesRecordings):
    """A number from prediction and target, and its gradient.

    ``loss(prediction, target)`` returns the value, ``loss.backward()`` afterwards the gradient with
    respect to the prediction. The value is a float64 array of no dimensions, which prints and
    formats as a number.

    With the reduction ``"none"`` it returns the losses themselves, in float64: one for each element
    of the prediction; against class labels, and of Gaussians, one for each target; of cosines, one
    for each vector or pair. ``backward()`` then returns the gradient of their sum.

    ``loss(prediction, target, weight)`` weights the rows of the batch, by numbers ≥ 0: a mean is
    then Σ weight_i · L_i / Σ weight_i, a sum Σ weight_i · L_i, and single losses are
    weight_i · L_i. A mean of which every weight is 0 would be 0 / 0, and is refused, except in a
    ``MultiLoss``, where other heads may have rows. For sequences, (batch, time, ...), each step may
    have a weight, (batch, time): 0 for padding.

    A subclass writes ``forward(prediction, target)``, which returns (value, gradient) as
    ``self.reduction`` asks and may take a weight as well, and ``examples()``, from which the tests
    and ``minidl check`` verify it.

    Parameters
    ----------
    reduction
        ``"mean"`` over the batch (over all elements, for elementwise losses), ``"sum"`` or
        ``"none"``.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> loss = nn.MSELoss("none")
    >>> prediction, target = np.array([[1.0, 3.0], [2.0, 0.0]]), np.zeros((2, 2))
    >>> loss(prediction, target)
    array([[1., 9.],
           [4., 0.]])
    >>> loss.backward()
    array([[2., 6.],
           [4., 0.]])
    >>> nn.CrossEntropyLoss("none")(prediction, np.array([1, 0])).round(3)  # one for each row
    array([0.127, 0.127])
    """

    registry: ClassVar[list[type[Loss]]] = []
    # Whether targets are integer class labels, which a Trainer must not cast.
    takes_labels: ClassVar[bool] = False
    # The label of rows that are left out, if there is one.
    ignore_index: int | None = None
    reduction: str = "mean"

    @property
    def predicts_targets(self) -> bool:
        """Whether a good prediction is near its target, or scores its label."""
        return True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "examples" in cls.__dict__:
            Loss.registry.append(cls)

    def __init__(self, reduction: str = "mean") -> None:
        choices = "mean", "sum", "none"
        self.reduction = check_choice(type(self).__name__, "reduction", reduction, *choices)

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        """Yield triples of a loss, a prediction and a target."""
        return iter(())

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        raise NotImplementedError(f"{type(self).__name__} has no forward pass")

    def weighted_shape(self, prediction: Array) -> tuple[int, ...]:
        """Return the shape of the weights: one for each row of the batch."""
        return prediction.shape[:1]

    def check_weight(self, prediction: Array, weight: Array) -> None:
        """Raise unless ``weight`` has the prediction's dtype and one number per row."""
        if not isinstance(weight, np.ndarray) or weight.dtype != prediction.dtype:
            got = weight.dtype if isinstance(weight, np.ndarray) else type(weight).__name__
            raise TypeError(f"{self!r}: weight must be a {prediction.dtype} array, got {got}")
        expected = self.weighted_shape(prediction)
        of_steps = prediction.shape[:2] if prediction.ndim > 2 else expected
        if weight.shape not in (expected, of_steps):
            raise ValueError(f"{self!r}: expected weights of shape {expected}, got {weight.shape}")

    def row_weights(self, target: Array, weight: Array | None = None) -> Array | None:
        """Return the weight of each row in a mean; None if all are equal."""
        return weight

    def check_input(self, prediction: Array, target: Array) -> None:
        """Raise if prediction and target cannot be compared: here, unless shape and dtype agree."""
        for name, array in (("prediction", prediction), ("target", target)):
            if not isinstance(array, np.ndarray):
                kind = type(array).__name__
                raise TypeError(f"{self!r}: {name} must be a NumPy array, got {kind}")
        if prediction.dtype not in (np.float32, np.float64):
            raise TypeError(
                f"{self!r}: prediction must be float32 or float64, got {prediction.dtype}; "
                "write prediction.astype(np.float32)"
            )
        if prediction.size == 0:
            raise ValueError(f"{self!r}: empty batch of shape {prediction.shape}")
        self.check_target(prediction, target)

    def check_target(self, prediction: Array, target: Array) -> None:
        """Raise if the target does not fit the prediction."""
        if target.shape != prediction.shape:
            raise ValueError(
                f"{self!r}: prediction {prediction.shape} and target {target.shape} differ in shape"
            )
        self.check_target_dtype(prediction, target)

    def check_target_dtype(self, prediction: Array, target: Array) -> None:
        """Raise TypeError unless the target has the prediction's dtype."""
        if target.dtype != prediction.dtype:
            raise TypeError(
                f"{self!r}: prediction is {prediction.dtype}, target {target.dtype}; "
                f"write target.astype(np.{prediction.dtype})"
            )

    def __call__(self, prediction: Array, target: Array, weight: Array | None = None) -> Array:
        self.check_input(prediction, target)
        inputs: tuple[Array, ...] = (prediction, target)
        if weight is not None:
            self.check_weight(prediction, weight)
            inputs = prediction, target, weight
            if weight.shape != self.weighted_shape(prediction):  # every step becomes a row
                inputs = tuple(by_steps(array, weight.ndim) for array in inputs)
        value, gradient = run_forward(self, inputs)
        if self.reduction == "none" and prediction.ndim and not getattr(value, "ndim", 0):
            raise NotImplementedError(
                f'{self!r}: forward returned one number; for reduction="none" it must return an '
                "array of losses, one for each element or row"
            )
        if inputs[0] is not prediction:
            gradient = gradient.reshape(prediction.shape)
            if self.reduction == "none":
                value = value.reshape(*prediction.shape[:2], *value.shape[1:])
        if not is_evaluating():
            kept_by(self)["_gradient"] = gradient
        return value

    def backward(self) -> Array:
        """Return, once, the gradient with respect to the prediction of the latest call."""
        gradient: Array | None = kept_by(self).pop("_gradient", None)
        if gradient is None:
            raise RuntimeError(
                f"{self!r}: backward without a forward pass before it. "
                "Every backward pass needs a forward pass of its own, outside of nn.evaluating()."
            )
        return gradient

    def forget(self) -> None:
        """Drop the gradient of the latest call."""
        kept_by(self).pop("_gradient", None)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that differ from their defaults, for ``repr``."""
        return {} if self.reduction == "mean" else {"reduction": self.reduction}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({shown})"


def by_steps(array: Array, dimensions: int) -> Array:
    """Merge the first ``dimensions`` axes, so that every step of a sequence is a row."""
    if not array.flags.c_contiguous:
        array = kernels.copy(array)
    return array.reshape(-1, *array.shape[dimensions:])


class MSELoss(Loss):
    """Mean squared error.

    L = (prediction - target)²,  dprediction = 2 · (prediction - target)

    Shapes
    ------
    prediction and target of the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> float(nn.MSELoss()(np.array([[1.0, 3.0]]), np.array([[0.0, 0.0]])))
    5.0
    """

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        mean, each = self.reduction == "mean", self.reduction == "none"
        return kernels.mse(prediction, target, mean, weight, each=each)

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
        yield cls("sum"), rng.normal(size=(1, 1)), rng.normal(size=(1, 1))
        yield cls("none"), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))


class L1Loss(Loss):
    """Mean absolute error: the gradient of an outlier is no larger than that of any other error.

    L = |prediction - target|,  dprediction = sign(prediction - target), 0 where they are equal

    Shapes
    ------
    prediction and target of the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> float(nn.L1Loss()(np.array([[1.0, -3.0]]), np.array([[0.0, 0.0]])))
    2.0
    """

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        mean, each = self.reduction == "mean", self.reduction == "none"
        return kernels.absolute_error(prediction, target, mean, weight, each=each)

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
        yield cls("sum"), rng.normal(size=(1, 1)), rng.normal(size=(1, 1))
        yield cls("none"), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))


class HuberLoss(Loss):
    """Squared error up to δ, absolute error beyond it: no gradient is larger than δ.

    L = e² / 2 for |e| ≤ δ, else δ · (|e| - δ / 2), with e = prediction - target
    dprediction = min(max(e, -δ), δ)

    Source: Huber 1964.

    Parameters
    ----------
    delta
        δ > 0.
    reduction
        ``"mean"`` over all elements, ``"sum"`` or ``"none"``: see ``Loss``.

    Shapes
    ------
    prediction and target of the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> float(nn.HuberLoss(delta=1.0)(np.array([[1.0, -3.0]]), np.array([[0.0, 0.0]])))
    1.5
    """

    def __init__(self, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.delta = check_number("HuberLoss", "delta", delta, POSITIVE, np.inf)

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        mean, each = self.reduction == "mean", self.reduction == "none"
        return kernels.huber(prediction, target, self.delta, mean, weight, each=each)

    def settings(self) -> dict[str, Any]:
        return super().settings() | ({} if self.delta == 1 else {"delta": self.delta})

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
        yield cls(0.3, "sum"), rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
        yield cls(0.3, "none"), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))


class BCEWithLogitsLoss(Loss):
    """Binary cross entropy of sigmoid(logits) against targets in [0, 1].

    L = max(z, 0) - z · t + log(1 + exp(-|z|)),  dz = sigmoid(z) - t

    This form never overflows. It equals -t · log σ(z) - (1 - t) · log σ(-z); with a weight w for
    targets of one, -w · t · log σ(z) - (1 - t) · log σ(-z). The mean is over all elements, whatever
    w is, as in PyTorch.

    Parameters
    ----------
    reduction
        ``"mean"`` over all elements, ``"sum"`` or ``"none"``: see ``Loss``.
    pos_weight
        w > 0, one number or one per logit of a row: above 1 if positives are rare.

    Shapes
    ------
    logits and target of the same shape; pos_weight (logits of a row).

    Raises
    ------
    ValueError
        For a ``pos_weight`` that is not finite and > 0, or of another number of logits.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> f"{nn.BCEWithLogitsLoss()(np.zeros((1, 1)), np.ones((1, 1))):.4f}"  # log 2
    '0.6931'
    """

    def __init__(self, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        if pos_weight is not None:
            pos_weight = np.array(pos_weight, np.float64).reshape(-1)
            if not ((pos_weight > 0) & np.isfinite(pos_weight)).all() or not len(pos_weight):
                raise ValueError(
                    "BCEWithLogitsLoss: pos_weight must be finite and > 0, one number or one for "
                    f"every logit of a row, got {pos_weight}"
                )
        self._pos_weight: Array | None = pos_weight
        self._cast_weights: dict[Any, Array] = {}  # by dtype and number of columns

    @property
    def pos_weight(self) -> Array | None:
        """The weight of targets of 1, for every logit of a row; or None."""
        return self._pos_weight

    def check_target(self, prediction: Array, target: Array) -> None:
        super().check_target(prediction, target)
        count = 1 if self._pos_weight is None else len(self._pos_weight)
        if count > 1 and prediction.shape[-1] != count:
            raise ValueError(f"{self!r}: {count} weights for {prediction.shape[-1]} logits a row")

    def _pos_weight_like(self, logits: Array) -> Array | None:
        """Return the weight of every column, in the dtype of the logits, for a kernel to read."""
        if self._pos_weight is None:
            return None
        columns = logits.size // len(logits)
        kind = logits.dtype, columns
        if kind not in self._cast_weights:
            self._cast_weights[kind] = np.resize(self._pos_weight, columns).astype(logits.dtype)
        return stand_in("state", "pos_weight", self._cast_weights[kind])

    def forward(
        self, logits: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        mean, each = self.reduction == "mean", self.reduction == "none"
        ones = self._pos_weight_like(logits)
        return kernels.bce_with_logits(logits, target, mean, weight, ones, each=each)

    def settings(self) -> dict[str, Any]:
        if self._pos_weight is None:
            return super().settings()
        return super().settings() | {"pos_weight": self._pos_weight.tolist()}

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 3)), rng.uniform(size=(4, 3))
        yield cls("sum"), rng.normal(size=(1, 1)), np.ones((1, 1))
        for reduction in ("mean", "none"):
            weighted = cls(reduction, [3, 0.5, 1])
            yield weighted, rng.normal(size=(4, 3)), rng.uniform(size=(4, 3))
        yield cls("none"), rng.normal(size=(2, 3, 2)), rng.uniform(size=(2, 3, 2))
