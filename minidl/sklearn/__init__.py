"""Estimators for scikit-learn: networks that fit into pipelines and searches.

Needs scikit-learn 1.6 or later: ``pip install "minidl[sklearn]"``. Read ``estimator.py`` first.

==================  ========================================================================
module              what it has
==================  ========================================================================
``parameters``      the parameters of a training, and their checks
``estimator``       from data to rows; ``fit`` and ``partial_fit``
``fitting``         a network in training, by a ``Trainer``
``progress``        the loss curve, when a training ends, what it shows
``results``         attributes after ``fit``, the table in a notebook
``targets``         labels and numbers, encoded and decoded
``objectives``      losses as scikit-learn defines them
``network``         fully connected networks from parameters
``classification``  what all classifiers share
``regression``      what all regressors share
``tabular``         ``MLPClassifier``, ``MLPRegressor``
``net``             ``NetClassifier``, ``NetRegressor``, around any network
``sequences``       ``SequenceClassifier``, ``SequenceRegressor``
``threads``         limits of threads by threadpoolctl
==================  ========================================================================
"""

try:
    import sklearn
except ImportError:
    raise ImportError("minidl.sklearn needs scikit-learn: pip install 'minidl[sklearn]'") from None
if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 6):
    raise ImportError(
        f"minidl.sklearn needs scikit-learn 1.6 or later, got {sklearn.__version__}: "
        "pip install -U scikit-learn"
    )

from minidl.sklearn.fitting import DivergenceError
from minidl.sklearn.net import NetClassifier, NetRegressor
from minidl.sklearn.sequences import SequenceClassifier, SequenceRegressor
from minidl.sklearn.tabular import MLPClassifier, MLPRegressor
from minidl.sklearn.threads import register

__all__ = [
    "DivergenceError",
    "MLPClassifier",
    "MLPRegressor",
    "NetClassifier",
    "NetRegressor",
    "SequenceClassifier",
    "SequenceRegressor",
]

register()
