"""Losses of the angle between vectors, whatever their lengths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl import kernels
from minidl.nn.checks import check_number
from minidl.nn.losses import Loss
from minidl.typing import Array


class CosineSimilarityLoss(Loss):
    """One minus the cosine of the angle between the vectors of prediction and target.

    L = 1 - cos(p, t), cos(p, t) = p · t / (‖p‖ · ‖t‖)
    dp = cos(p, t) · p / ‖p‖² - t / (‖p‖ · ‖t‖)

    It is 0 for vectors of one direction, 1 for orthogonal ones, 2 for opposite ones. A vector
    shorter than 1e-8 counts as that long, and its length as constant.

    Parameters
    ----------
    reduction
        ``"mean"`` over all vectors, ``"sum"`` or ``"none"``, one loss for each: see ``Loss``.

    Shapes
    ------
    prediction and target of the same shape, (..., features).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> prediction, target = np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([[3.0, 0.0], [1.0, -1.0]])
    >>> float(nn.CosineSimilarityLoss()(prediction, target))
    0.5
    """

    def check_target(self, prediction: Array, target: Array) -> None:
        if prediction.ndim < 2:
            raise ValueError(
                f"{self!r}: prediction must be (batch, features), got {prediction.shape}"
            )
        super().check_target(prediction, target)

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        mean, each = self.reduction == "mean", self.reduction == "none"
        return kernels.cosine_similarity(prediction, target, mean, weight, each=each)

    @property
    def predicts_targets(self) -> bool:
        return False

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
        yield cls("sum"), rng.normal(size=(1, 5)), rng.normal(size=(1, 5))
        yield cls("none"), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
        yield cls(), rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
        yield cls("none"), rng.normal(size=(3, 1, 4)), rng.normal(size=(3, 1, 4))


class CosineEmbeddingLoss(Loss):
    """Cosine loss of pairs: those that belong together are turned together, others apart.

    L = 1 - cos(u, v) for pairs with target > 0, else max(0, cos(u, v) - margin)

    One network can embed both vectors of a pair: ``Linear`` and activations take inputs of the
    shape (batch, 2, in_features). ``CosineSimilarityLoss`` gives cosine and gradient.

    Parameters
    ----------
    margin
        In [-1, 1): different vectors whose cosine is not larger cost nothing.
    reduction
        ``"mean"`` over all pairs, ``"sum"`` or ``"none"``: see ``Loss``.

    Shapes
    ------
    prediction (batch, 2, features); target (batch) or (batch, 1), 1 for pairs that belong together,
    else -1 (or 0).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> pairs = np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [5.0, 0.0]]])
    >>> loss = nn.CosineEmbeddingLoss(margin=0.25, reduction="none")
    >>> loss(pairs, np.array([1.0, -1.0]))
    array([1.  , 0.75])
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = check_number("CosineEmbeddingLoss", "margin", margin, -1, 1)

    def check_target(self, prediction: Array, target: Array) -> None:
        if prediction.ndim != 3 or prediction.shape[1] != 2:
            raise ValueError(
                f"{self!r}: prediction must be (batch, 2, features), pairs of vectors, got "
                f"{prediction.shape}"
            )
        rows = prediction.shape[:1]
        if target.shape not in (rows, (*rows, 1)):
            raise ValueError(f"{self!r}: expected target {rows}, got {target.shape}")
        self.check_target_dtype(prediction, target)

    def check_weight(self, prediction: Array, weight: Array) -> None:
        super().check_weight(prediction[:, 0], weight)  # one for each pair, none for each vector

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        mean, each = self.reduction == "mean", self.reduction == "none"
        given = target.reshape(len(prediction)), self.margin, mean, weight
        value, gradient = kernels.cosine_embedding(prediction, *given, each=each)
        return (value.reshape(target.shape) if each else value), gradient

    @property
    def predicts_targets(self) -> bool:
        return False

    def settings(self) -> dict[str, Any]:
        return super().settings() | ({"margin": self.margin} if self.margin else {})

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 2, 3)), np.array([1.0, -1.0, -1.0, 1.0])
        yield cls(0.5, "sum"), rng.normal(size=(1, 2, 5)), np.array([1.0])
        yield cls(-0.2, "none"), rng.normal(size=(4, 2, 3)), np.array([1.0, -1.0, 0.0, 1.0])
