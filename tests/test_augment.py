"""Random changes of images, and ``fit(transform=)``, which applies them to batches."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl import augment, nn, optim
from minidl.augment import Compose, Flip, Noise, Shift
from minidl.training import Callback, Trainer
from minidl.training import epoch as epochs

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(40, 5, 6, 2)).astype(np.float32)
LABELS = RNG.integers(3, size=40)
EXAMPLES = [Shift(2), Shift(9, fill=-1.0), Flip(), Noise(0.3), Compose(Shift(1), Flip(), Noise(1))]


# --- the transforms -------------------------------------------------------------------------


def moved(image: Any, down: int, right: int, fill: float) -> Any:
    """An image, shifted pixel by pixel."""
    result = np.full_like(image, fill)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            if 0 <= i - down < image.shape[0] and 0 <= j - right < image.shape[1]:
                result[i, j] = image[i - down, j - right]
    return result


def test_shift_moves_each_image_by_whole_pixels_evenly() -> None:
    x = np.repeat(IMAGES[:1], 2000, axis=0)
    y = Shift(1, fill=7.0)(x, rng=0)
    places = {(a, b): moved(x[0], a, b, 7.0) for a in (-1, 0, 1) for b in (-1, 0, 1)}
    counts = {place: int((y == image).all(axis=(1, 2, 3)).sum()) for place, image in places.items()}
    assert sum(counts.values()) == 2000
    expected, error = 2000 / 9, np.sqrt(2000 / 9 * 8 / 9)
    assert all(abs(count - expected) < 4 * error for count in counts.values()), counts


def test_flip_mirrors_as_often_as_it_says() -> None:
    x = np.repeat(IMAGES[:1], 2000, axis=0)
    y = Flip(0.3)(x, rng=0)
    mirrored = (y == x[0, :, ::-1]).all(axis=(1, 2, 3))
    assert ((y == x[0]).all(axis=(1, 2, 3)) ^ mirrored).all()
    assert abs(mirrored.mean() - 0.3) < 4 * np.sqrt(0.21 / 2000)
    np.testing.assert_array_equal(Flip(0)(x), x)


def test_noise_has_the_spread_it_says_and_is_that_of_no_other_pixel() -> None:
    noise = Noise(0.5)(np.zeros((400, 5, 5, 1)), rng=0).reshape(400, 25)
    assert abs(noise.mean()) < 4 * 0.5 / 100
    assert abs(noise.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * 10_000)
    correlations = np.corrcoef(noise, rowvar=False) - np.eye(25)
    assert np.abs(correlations).max() < 5 / np.sqrt(400)


def test_compose_applies_one_after_the_other() -> None:
    def add(x: Any, rng: Any) -> Any:
        return x + 1

    def double(x: Any, rng: Any) -> Any:
        return 2 * x

    np.testing.assert_array_equal(Compose(add, double)(IMAGES), 2 * (IMAGES + 1))


@pytest.mark.parametrize("transform", EXAMPLES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_seed_same_images_and_the_given_ones_stay(transform: Any, dtype: Any) -> None:
    x = IMAGES.astype(dtype)
    before = x.copy()
    y = transform(x, rng=3)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    np.testing.assert_array_equal(transform(x, rng=3), y)
    assert not np.array_equal(transform(x, rng=4), y)
    np.testing.assert_array_equal(x, before)
    assert eval(repr(transform), vars(augment)).__dict__.keys() == transform.__dict__.keys()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shift(0), "Shift: pixels must be >= 1, got 0"),
        (lambda: Flip(1.5), "Flip: probability must be in [0, 1], got 1.5"),
        (lambda: Noise(0), "Noise: std must be a finite number > 0, got 0"),
        (lambda: Noise(np.nan), "Noise: std must be a finite number > 0, got nan"),
        (lambda: Compose(Flip(), 3), "Compose takes functions of a batch and a generator, got 3"),
        (lambda: Compose(Flip), "Compose takes functions of a batch and a generator, got <class"),
        (lambda: Shift(1, fill="x"), "Shift: fill must be a number, got 'x'"),
        (lambda: Shift(1, fill=np.nan), "Shift: fill must be finite, got nan"),
        (lambda: Flip("often"), "Flip: probability must be in [0, 1], got 'often'"),
        (lambda: Noise(None), "Noise: std must be a finite number > 0, got None"),
        (lambda: Noise(True), "Noise: std must be a finite number > 0, got True"),
        (lambda: Flip(True), "Flip: probability must be in [0, 1], got True"),
        (lambda: Compose([Flip()]), "got [Flip(0.5)]; write Compose(*transforms)"),
        (lambda: Flip()(np.zeros((3, 4))), "expected real images (batch, height, width, channels)"),
        (lambda: Shift(1)(np.zeros((3, 4, 4, 1), int)), "got int64 of shape (3, 4, 4, 1)"),
        (lambda: Noise(1)([[1.0]]), "(batch, height, width, channels), got list"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        make()


# --- fit(transform=) ------------------------------------------------------------------------


def made(record: bool = True, seed: int = 0, **options: Any) -> Trainer:
    model = nn.Sequential(nn.Flatten(), nn.Linear(60, 3), rng=seed)
    optimizer = optim.Adam(model.parameters(), 0.01)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=seed, record=record, **options)


def bits(trainer: Trainer) -> tuple[Any, ...]:
    losses = tuple(value.hex() for value in trainer.history["loss"])
    return trainer.optimizer.flat.data.tobytes(), losses, trainer.rng.bit_generator.state["state"]


def fitted(transform: Any, trainer: Trainer | None = None, epochs: int = 3, **options: Any) -> Any:
    trainer = made() if trainer is None else trainer
    settings: dict[str, Any] = {"batch_size": 7, "progress": False, "diagnose": False}
    trainer.fit(IMAGES, LABELS, epochs, **settings | options, transform=transform)
    return bits(trainer)


class EveryStep(Callback):
    """Has steps made one at a time."""

    def on_batch_end(self, trainer: Trainer, epoch: int, values: Any) -> None:
        pass


@pytest.mark.parametrize("accumulate", [1, 2])
def test_same_bits_recorded_eager_and_however_many_steps_at_a_time(
    accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = Compose(Shift(1), Flip(), Noise(0.1))
    together = fitted(change, accumulate=accumulate)
    assert fitted(change, made(record=False), accumulate=accumulate) == together
    assert fitted(change, accumulate=accumulate, callbacks=[EveryStep()]) == together
    assert fitted(change, made(seed=1), accumulate=accumulate) != together
    monkeypatch.setattr(epochs, "TRANSFORMED_BYTES", 20 * IMAGES[0].nbytes)
    assert fitted(change, accumulate=accumulate) == together
    without_metrics = fitted(change, made(metrics=()), accumulate=accumulate)
    assert without_metrics == together


def test_two_fits_are_one() -> None:
    trainer = made()
    fitted(Noise(0.1), trainer, epochs=2)
    assert fitted(Noise(0.1), trainer, epochs=1)[0] == fitted(Noise(0.1), epochs=3)[0]


def test_every_batch_of_every_epoch_is_changed_anew_and_the_data_are_not() -> None:
    seen: list[Any] = []

    def watch(x: Any, rng: np.random.Generator) -> Any:
        seen.append((x.copy(), rng.integers(2**63)))
        x[...] = 0  # its own copy
        return x

    before = IMAGES.copy()
    fitted(watch, made(record=False), epochs=2)
    np.testing.assert_array_equal(IMAGES, before)
    assert [len(x) for x, _ in seen] == 2 * [7, 7, 7, 7, 7, 5]
    assert len({number for _, number in seen}) == len(seen)
    for begin in (0, 6):  # every epoch has seen every image
        rows = np.concatenate([x for x, _ in seen[begin : begin + 6]])
        np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(before, axis=0))


@pytest.mark.parametrize("record", [False, True])
def test_it_is_the_training_on_changed_rows(record: bool) -> None:
    plain = made(record)
    plain.fit(-2 * IMAGES, LABELS, 1, 7, progress=False, diagnose=False)
    changed = made(record)
    fitted(lambda x, rng: -2 * x, changed, epochs=1)
    np.testing.assert_array_equal(changed.optimizer.flat.data, plain.optimizer.flat.data)


def test_rows_of_validation_stay_as_they_are() -> None:
    trainer = made()
    validation = IMAGES[:8], LABELS[:8]
    fitted(lambda x, rng: 0 * x, trainer, epochs=1, validation=validation)
    assert trainer.history["val_loss"][-1] == trainer.evaluate(*validation)["loss"]


def test_several_inputs_are_a_tuple() -> None:
    x = RNG.normal(size=(12, 5, 3)).astype(np.float32)
    lengths, seen = RNG.integers(1, 6, size=12), set()

    def change(inputs: Any, rng: np.random.Generator) -> Any:
        x, lengths = inputs
        seen.add((x.shape, lengths.shape))
        return x + 1, lengths

    model = nn.Sequential(nn.GRU(3, 4, return_sequences=False), nn.Linear(4, 3), rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), rng=0)
    trainer.fit((x, lengths), LABELS[:12], 1, 4, progress=False, transform=change)
    assert seen == {((4, 5, 3), (4,))}


def nothing(x: Any, rng: Any) -> Any:
    return None


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (3, "fit: transform must be a function of a batch and a generator"),
        (Shift, "such as augment.Shift(2); got <class"),
        (nothing, "fit: transform must give an array, got NoneType"),
        (lambda x, rng: x[:, 1:], "must keep the shape of a batch, (7, 5, 6, 2); it gave (7, 4,"),
        (lambda x, rng: x * 1j, "must keep the dtype of a batch, float32; it gave complex64"),
        (lambda x, rng: x / 0, "fit: transform gave NaN or infinity in row 0 of a batch"),
    ],
)
def test_a_wrong_transform_is_refused_before_a_step(transform: Any, message: str) -> None:
    trainer = made()
    before = trainer.optimizer.flat.data.copy()
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        fitted(transform, trainer)
    np.testing.assert_array_equal(trainer.optimizer.flat.data, before)


def test_an_optimizer_that_compares_losses_of_the_same_rows_takes_none() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(60, 3), rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.LBFGS(model.parameters()))
    with pytest.raises(ValueError, match="compares losses of the same rows"):
        trainer.fit(IMAGES, LABELS, 1, transform=Flip())


def test_a_step_that_is_not_finite_is_explained_by_the_rows_it_saw() -> None:
    def enormous(x: Any, rng: np.random.Generator) -> Any:
        return np.sign(x) * np.float32(3e38)

    trainer = made()
    trainer.model[1].weight.data = 100 * trainer.model[1].weight.data
    with pytest.raises(FloatingPointError, match=r"training step 1: .*layer 1 Linear"):
        fitted(enormous, trainer)
