"""The remedies that a diagnosis can prescribe, each as a sentence and as lines of code.

A verdict names one of them as its ``action``. ``apply.py`` carries them out on a copy of the
program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from minidl.diagnosis.words import counted


class Action:
    """A change of a training program.

    ``sentence()`` says it in words with its number, ``code()`` gives the lines that a user would
    write.
    """

    def sentence(self) -> str:
        """Say what to do, as a clause without a full stop."""
        raise NotImplementedError(f"{type(self).__name__} has no sentence")

    def code(self) -> tuple[str, ...]:
        """Return the lines that do it."""
        raise NotImplementedError(f"{type(self).__name__} has no code")


@dataclass(frozen=True)
class ScaleInputs(Action):
    """Standardise the inputs: ``nn.Standardize`` in front of the model.

    Parameters
    ----------
    columns
        The columns whose scale was found wrong; none: all of them. All are standardised.
    """

    columns: tuple[int, ...] = ()

    def sentence(self) -> str:
        """Name the columns that made it necessary."""
        which = ", ".join(map(str, self.columns[:5])) + (", …" if len(self.columns) > 5 else "")
        word = "column" if len(self.columns) == 1 else "columns"
        reason = f" ({word} {which} most of all)" if self.columns else ""
        return f"bring every column of X to mean 0 and deviation 1{reason}"

    def code(self) -> tuple[str, ...]:
        """A layer in front of the model, so that predictions are made from raw rows."""
        return ("model = nn.Sequential(nn.Standardize(X.shape[-1]).adapt(X), model)",)


@dataclass(frozen=True)
class ScaleTargets(Action):
    """Standardise the targets: learn (y - mean) / deviation, and answer in the units of y."""

    def sentence(self) -> str:
        """Say what is learned."""
        return "learn targets of mean 0 and deviation 1, and convert the answers back"

    def code(self) -> tuple[str, ...]:
        """Train on scaled targets; predictions are converted back."""
        return (
            "mean, deviation = y.mean(axis=0), y.std(axis=0)",
            "trainer.fit(X, (y - mean) / deviation, ...)",
            "trainer.predict(X) * deviation + mean",
        )


@dataclass(frozen=True)
class SetLearningRate(Action):
    """Keep the optimizer and set its learning rate."""

    lr: float

    def sentence(self) -> str:
        """Name the rate."""
        return f"set the learning rate to {self.lr:.2g}"

    def code(self) -> tuple[str, ...]:
        """Set it."""
        return (f"optimizer.lr = {self.lr:.2g}",)


@dataclass(frozen=True)
class UseOptimizer(Action):
    """Train with another optimizer.

    Parameters
    ----------
    name
        Its class in ``minidl.optim``: "Adam", "SGD", "RMSprop", "AdamW", ...
    lr
        Its learning rate.
    momentum
        That of SGD and RMSprop.
    """

    name: str
    lr: float
    momentum: float = 0.0

    def sentence(self) -> str:
        """Name optimizer and rate."""
        more = f" and a momentum of {self.momentum:g}" if self.momentum else ""
        return f"train with {self.name} at a learning rate of {self.lr:.2g}{more}"

    def code(self) -> tuple[str, ...]:
        """Build it, last of all."""
        more = f", momentum={self.momentum:g}" if self.momentum else ""
        return (f"optimizer = optim.{self.name}(model.parameters(), lr={self.lr:.2g}{more})",)


@dataclass(frozen=True)
class Reinitialise(Action):
    """Draw the weights anew, by an initialiser that keeps signals at their size.

    Parameters
    ----------
    init
        "he_normal", "xavier_uniform", "lecun_normal", "orthogonal" or another of ``nn.init``;
        None: for each layer the one that suits the activation after it, which is minidl's default.
        Biases become zero; of recurrent layers those that their class has by default.
    layers
        Paths of the layers; none: all. Frozen ones stay as they are.
    draw
        0 draws from the program's seed, other numbers from others.
    """

    init: str | None = None
    layers: tuple[str, ...] = ()
    draw: int = 0

    def sentence(self) -> str:
        """Name the initialiser."""
        what = self.init or "He normal before ReLU and its relatives, else Xavier uniform"
        where = f" of layers {', '.join(self.layers)}" if self.layers else ""
        again = f" by another seed, {self.draw}" if self.draw else ""
        return f"draw the weights{where} anew{again} ({what}), biases zero"

    def code(self) -> tuple[str, ...]:
        """Linear layers with this initialiser."""
        given = f", init={self.init!r}" if self.init else ""
        return (f"nn.Linear(in_features, out_features{given})",)


@dataclass(frozen=True)
class ReplaceActivation(Action):
    """Put another activation in the place of those between the layers.

    Parameters
    ----------
    name
        Its class in ``minidl.nn``: "ReLU", "LeakyReLU", "Tanh", "ELU", "SiLU", ...
    layers
        Paths of the activations to replace; none: all but the head.
    """

    name: str
    layers: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Name the activation."""
        where = f"those of {', '.join(self.layers)}" if self.layers else "the hidden activations"
        return f"replace {where} by {self.name}"

    def code(self) -> tuple[str, ...]:
        """The new layer."""
        return (f"nn.{self.name}()",)


@dataclass(frozen=True)
class InsertNormalization(Action):
    """Put a normalization between each hidden layer of weights and its activation.

    Parameters
    ----------
    name
        "LayerNorm", "BatchNorm" or "RMSNorm".
    """

    name: str = "BatchNorm"

    def sentence(self) -> str:
        """Name the normalization."""
        return f"put {self.name} before every hidden activation"

    def code(self) -> tuple[str, ...]:
        """What stands before an activation then."""
        return (f"nn.Linear(n, m), nn.{self.name}(m), nn.ReLU()",)


@dataclass(frozen=True)
class AddResiduals(Action):
    """Put an identity around every hidden layer whose input and output have one width."""

    def sentence(self) -> str:
        """Say what it makes."""
        return "put a way around every hidden layer, y = body(x) + x"

    def code(self) -> tuple[str, ...]:
        """A residual block."""
        return ("nn.Residual(nn.Sequential(nn.Linear(n, n), nn.ReLU()))",)


@dataclass(frozen=True)
class ReplaceHead(Action):
    """Make head, loss and targets fit each other.

    Parameters
    ----------
    head
        The last activation: "Sigmoid", "Softmax", "LogSoftmax", ...; "" for none (a linear head);
        None to keep it.
    loss
        A class of ``minidl.nn``: "MSELoss", "CrossEntropyLoss", "BCEWithLogitsLoss", ...; None to
        keep it.
    """

    head: str | None = None
    loss: str | None = None

    def sentence(self) -> str:
        """Name head and loss."""
        parts = []
        if self.head is not None:
            parts.append(f"end the model in {self.head}" if self.head else "end in a linear layer")
        if self.loss is not None:
            parts.append(f"train with {self.loss}")
        return " and ".join(parts)

    def code(self) -> tuple[str, ...]:
        """The head and the loss."""
        lines = []
        if self.head is not None:
            head = f", nn.{self.head}()" if self.head else ""
            lines.append(f"model = nn.Sequential(..., nn.Linear(n, outputs){head})")
        if self.loss is not None:
            lines.append(f"loss = nn.{self.loss}()")
        return tuple(lines)


@dataclass(frozen=True)
class FixGradient(Action):
    """Replace the gradient of a loss of the user's own, which is not that of its value.

    Parameters
    ----------
    factor
        What its gradient must be multiplied by: -1 for a wrong sign.
    """

    factor: float = -1.0

    def sentence(self) -> str:
        """Name the factor."""
        return f"multiply the gradient that the loss returns by {self.factor:.3g}"

    def code(self) -> tuple[str, ...]:
        """What the loss should return."""
        return (f"return value, {self.factor:.3g} * gradient  # at the end of the loss's forward",)


@dataclass(frozen=True)
class ReplaceCell(Action):
    """Put another recurrent layer in the place of the one there is.

    Parameters
    ----------
    name
        "LSTM" or "GRU".
    """

    name: str = "LSTM"

    def sentence(self) -> str:
        """Name the layer."""
        return f"use {self.name} in place of the recurrent layer, whose gates carry the gradient"

    def code(self) -> tuple[str, ...]:
        """The new layer."""
        return (f"nn.{self.name}(in_features, hidden_size)",)


@dataclass(frozen=True)
class GateBias(Action):
    """Have the gates of recurrent layers keep the state for long, before they have learned when to.

    With a bias b a forget gate begins at σ(b), and what it keeps fades over 1 / (1 - σ(b)) = 1 + eᵇ
    steps: b = log(T - 1) for T of them. Source: Tallec and Ollivier 2018, section 3.

    Parameters
    ----------
    bias
        Of LSTM's forget gate, and of GRU's update gate.
    """

    bias: float

    def sentence(self) -> str:
        """Name the bias, and how long it keeps the state."""
        steps = 1 + math.exp(self.bias)
        return (
            f"begin with gates that keep the state for {steps:.0f} steps, a bias of {self.bias:.2g}"
        )

    def code(self) -> tuple[str, ...]:
        """An option of the layers."""
        bias = f"{self.bias:.2g}"
        return (f"nn.LSTM(..., forget_bias={bias}) or nn.GRU(..., update_bias={bias})",)


@dataclass(frozen=True)
class Clip(Action):
    """Clip the gradient by its norm."""

    max_norm: float

    def sentence(self) -> str:
        """Name the norm."""
        return f"clip the gradient to a norm of {self.max_norm:.2g}"

    def code(self) -> tuple[str, ...]:
        """Set it."""
        return (f"optimizer.max_norm = {self.max_norm:.2g}",)


@dataclass(frozen=True)
class ClassWeights(Action):
    """Give every class the same total weight."""

    def sentence(self) -> str:
        """Say what is weighted."""
        return "weight the rows so that every class counts the same"

    def code(self) -> tuple[str, ...]:
        """An option of ``fit``."""
        return ('trainer.fit(X, y, ..., class_weight="balanced")',)


@dataclass(frozen=True)
class WeightDecay(Action):
    """Add an L2 penalty on the weights."""

    weight_decay: float

    def sentence(self) -> str:
        """Name its factor; zero takes the penalty away."""
        if not self.weight_decay:
            return "take the penalty on the weights away"
        return f"add a weight decay of {self.weight_decay:.2g}"

    def code(self) -> tuple[str, ...]:
        """Set it."""
        return (f"optimizer.weight_decay = {self.weight_decay:.2g}",)


@dataclass(frozen=True)
class Dropout(Action):
    """Set the probability of all dropout; without any, insert it after hidden activations.

    Parameters
    ----------
    p
        0 takes dropout away.
    """

    p: float

    def sentence(self) -> str:
        """Name the probability."""
        return f"drop units with probability {self.p:g}" if self.p else "take the dropout away"

    def code(self) -> tuple[str, ...]:
        """The layer."""
        return (f"nn.Dropout({self.p:g})",)


@dataclass(frozen=True)
class Epochs(Action):
    """Train for so many epochs."""

    epochs: int

    def sentence(self) -> str:
        """Name the number."""
        return f"train for {counted(self.epochs, 'epoch')}"

    def code(self) -> tuple[str, ...]:
        """An option of ``fit``."""
        return (f"trainer.fit(X, y, epochs={self.epochs})",)


@dataclass(frozen=True)
class BatchSize(Action):
    """Take so many rows for a step."""

    batch_size: int

    def sentence(self) -> str:
        """Name the number."""
        return f"use batches of {self.batch_size} rows"

    def code(self) -> tuple[str, ...]:
        """An option of ``fit``."""
        return (f"trainer.fit(X, y, ..., batch_size={self.batch_size})",)


@dataclass(frozen=True)
class Shuffle(Action):
    """Draw a new order of the rows for every epoch."""

    def sentence(self) -> str:
        """Say so."""
        return "draw a new order of the rows for every epoch"

    def code(self) -> tuple[str, ...]:
        """An option of ``fit``."""
        return ("trainer.fit(X, y, ..., shuffle=True)",)
