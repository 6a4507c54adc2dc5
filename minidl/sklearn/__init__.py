"""Estimators for scikit-learn."""

try:
    import sklearn  # noqa: F401
except ImportError:
    raise ImportError("minidl.sklearn needs scikit-learn: pip install 'minidl[sklearn]'") from None

from minidl.sklearn.tabular import MLPClassifier, MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
