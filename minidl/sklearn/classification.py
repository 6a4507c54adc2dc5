"""What all classifiers share: classes, probabilities, and weights of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import unique_labels

from minidl import nn
from minidl.nn.checks import check_choice, check_number
from minidl.sklearn import objectives
from minidl.sklearn.estimator import NetworkEstimator, goes_on_in_epochs
from minidl.sklearn.targets import Labels
from minidl.typing import Array


@dataclass(eq=False, repr=False)
class Classifier(ClassifierMixin, NetworkEstimator):
    """Learns classes: two, several, or several labels a row."""

    _: KW_ONLY
    loss: Any = "log_loss"
    class_weight: Mapping[Any, float] | str | None = None

    def _check_parameters(self) -> None:
        super()._check_parameters()
        owner, given = type(self).__name__, self.class_weight
        if isinstance(given, str):
            check_choice(owner, "class_weight", given, "balanced")
        elif given is not None and not isinstance(given, (Mapping, list)):
            raise TypeError(
                f'{owner}: class_weight must be "balanced" or {{label: weight}}, got {given!r}'
            )
        for weights in given if isinstance(given, list) else [given]:
            for label, weight in weights.items() if isinstance(weights, Mapping) else ():
                check_number(owner, f"class_weight[{label!r}]", weight, 0, np.inf)

    # --- targets ---

    def _learn_targets(self, y: Array, weight: Array | None, classes: Any) -> None:
        self._labels = Labels.of(y, classes)
        self.classes_ = self._labels.classes

    def _encode(self, y: Array, dtype: np.dtype[Any]) -> Array:
        return self._labels.encoded(y, dtype)

    def _row_weights(self, y: Array, weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return weight
        of_class = compute_sample_weight(self.class_weight, y)
        return of_class if weight is None else (weight * of_class).astype(weight.dtype)

    def _check_same_targets(self, y: Array) -> None:
        classes = unique_labels(y)
        if not self._labels.several and not np.array_equal(classes, self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {classes}"
            )

    def _check_same_classes(self, classes: Any) -> None:
        if not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                f"{self.classes_!r}"
            )

    def _strata(self, y: Array) -> Array | None:
        return None if self._labels.several else y

    def _make_loss(self) -> nn.Loss:
        owner = type(self).__name__
        return objectives.classification_loss(owner, self.loss, self._labels.takes_labels)

    def _score_outputs(self, outputs: Array, y: Array, weight: Array | None) -> float:
        return self._labels.accuracy(outputs, y, weight)

    # --- what users call ---

    @available_if(goes_on_in_epochs)
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        classes: Any = None,
        epochs: int = 1,
        validation: Any = None,
    ) -> Self:
        """Train for one epoch or several, going on where the latest call ended.

        As many calls of one epoch are ``fit`` of that many, to the last bit.

        Parameters
        ----------
        X, y, sample_weight, validation
            As for ``fit``.
        classes
            All classes that there will be; needed in the first call.
        epochs
            How many, ≥ 1; with ``early_stopping`` fewer, if the score on ``validation`` no longer
            improves.
        """
        if classes is None and not self.__sklearn_is_fitted__():
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if classes is not None and self.__sklearn_is_fitted__():
            self._check_same_classes(classes)
        if self.class_weight == "balanced":
            raise ValueError(
                'class_weight="balanced" needs all rows at once, partial_fit gets some: give '
                "{label: weight}"
            )
        return self._partial_fit(X, y, sample_weight, classes, epochs, validation)

    def predict(self, X: Any) -> Array:
        """Predict the likeliest class of each row, or all labels with a probability above ½."""
        outputs = self._outputs(X)
        return self._labels.decoded(outputs)

    def predict_proba(self, X: Any) -> Array:
        """Predict the probability of each class, in the order of ``classes_``: (rows, classes)."""
        outputs = self._outputs(X)
        return self._labels.probabilities(outputs)

    def predict_log_proba(self, X: Any) -> Array:
        """Predict the logarithm of each probability: (rows, classes); -inf where it is zero."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    # --- what fit leaves ---

    @property
    def n_outputs_(self) -> int:
        """Number of outputs of the network: one for two classes, else one for each."""
        return self._labels.outputs

    @property
    def out_activation_(self) -> str:
        """What turns outputs into probabilities: ``"softmax"`` or ``"logistic"``."""
        return self._labels.activation

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
