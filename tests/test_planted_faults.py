"""The suite finds faults: those of faults.txt are planted, and the checks must catch each.

A fault is a change of text in the source of a class, of the NumPy twin or of the schedules. The
changed source is executed beside the real one, and the copy is put to the check that should
fail, one of checks.py and optimizer_checks.py, which test_registry.py applies to everything
that is registered. A copy without a fault must pass the same check.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from checks import LAYER_CHECKS, LOSS_CHECKS, NoOracleError, layer_problems, loss_problems
from diagnosis_checks import DIAGNOSIS_CHECKS
from elsewhere_checks import ELSEWHERE_CHECKS, in_place_of
from elsewhere_checks import HOMES as ELSEWHERE_HOMES
from head_checks import HEAD_CHECKS
from kernel_cases import Draw
from monitor_helpers import MONITOR_CHECKS
from optimizer_checks import LIMITS, OPTIMIZER_CHECKS, plateau_oracle, schedule_oracle
from saving_checks import SAVING_CHECKS
from test_kernels import assert_matches_twin

from minidl import _kernels, kernels, nn, optim
from minidl._kernels import twins as reference
from minidl._kernels.twins import watching
from minidl.cli import predicting
from minidl.diagnosis import (
    causes,
    gradients,
    monitor,
    probes,
    reach,
    records,
    seen,
    task,
    tracks,
    watch,
)
from minidl.diagnosis.rules import closing, static
from minidl.nn import classification_losses, convolution, entrances, multi_loss, pooling
from minidl.nn.recurrent import cells
from minidl.optim import adam, adaptive, flat_parameters, optimizer, schedules, sgd
from minidl.recording import RecordingError
from minidl.saving import architecture, rebuilding
from minidl.training import checkpoint, resuming, running_metrics, tally

# What a check raises that has found something; the second is what pytest.raises raises.
FAILURES = (AssertionError, pytest.fail.Exception, RecordingError)
# Where the classes are that faults.txt names.
HOMES = [
    nn,
    classification_losses,
    convolution,
    pooling,
    cells,
    adam,
    adaptive,
    flat_parameters,
    optimizer,
    sgd,
]
# Modules of the monitor, and of what kernels note for it.
MONITOR_MODULES = (records, probes, tracks, watch, watching)
MONITOR_HOMES = {module.__name__.rpartition(".")[2]: module for module in MONITOR_MODULES}
# Modules of the diagnosis.
DIAGNOSIS_MODULES = (static, closing, task, gradients, causes, reach)
# Modules of models with several inputs and outputs.
HEAD_HOMES = {"multi_loss": multi_loss, "tally": tally, "entrances": entrances}
DIAGNOSIS_HOMES = {module.__name__.rpartition(".")[2]: module for module in DIAGNOSIS_MODULES}
# Modules that save, resume and predict.
SAVING_MODULES = (checkpoint, resuming, running_metrics, architecture, rebuilding, predicting)
SAVING_HOMES = {module.__name__.rpartition(".")[2]: module for module in SAVING_MODULES}


@dataclass(frozen=True)
class Fault:
    """Where it is planted and through what it is seen, what it is, and the change of text."""

    places: tuple[str, ...]
    what: str
    check: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{' > '.join(self.places)}: {self.what}"

    @property
    def classes(self) -> tuple[type, ...]:
        return tuple(map(class_of, self.places))

    @property
    def seen(self) -> type:
        return class_of(self.places[-1])


def class_of(name: str) -> type:
    return next(getattr(home, name) for home in HOMES if hasattr(home, name))


def faults() -> Iterator[Fault]:
    text = Path(__file__).with_name("faults.txt").read_text(encoding="utf-8")
    for block in re.split(r"\n\n+", text.strip()):
        head, *lines = [line for line in block.splitlines() if not line.startswith("#")] or [""]
        if not head:
            continue
        match = re.fullmatch(r"(.+?): (.+) \[(\w+)\]", head)
        assert match is not None, f"not a fault: {head!r}"
        old, new = ("\n".join(line[1:] for line in lines if line.startswith(sign)) for sign in "-+")
        yield Fault(tuple(match[1].split(" > ")), match[2], match[3], old, new)


FAULTS = list(faults())
IN_SCHEDULES = [fault for fault in FAULTS if fault.places == ("schedules",)]
IN_KERNELS = [fault for fault in FAULTS if fault.places[0] in _kernels.NAMES]
IN_MONITOR = [fault for fault in FAULTS if fault.places[0] in MONITOR_HOMES]
IN_DIAGNOSIS = [fault for fault in FAULTS if fault.places[0] in DIAGNOSIS_HOMES]
IN_HEADS = [fault for fault in FAULTS if fault.places[0] in HEAD_HOMES]
IN_SAVING = [fault for fault in FAULTS if fault.places[0] in SAVING_HOMES]
IN_FORMATS = [fault for fault in FAULTS if fault.places[0] in ELSEWHERE_HOMES]
OF_MODULES = (*IN_SCHEDULES, *IN_MONITOR, *IN_DIAGNOSIS, *IN_SAVING, *IN_FORMATS, *IN_HEADS)
IN_CLASSES = [fault for fault in FAULTS if fault not in (*OF_MODULES, *IN_KERNELS)]


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Faulty copies must not stay where the tests of all others find them."""
    lists: list[list[Any]] = [nn.Layer.registry, nn.Loss.registry, optim.Optimizer.registry]
    before = [list(registry) for registry in lists]
    yield
    for registry, classes in zip(lists, before, strict=True):
        registry[:] = classes


def changed(source: str, fault: Fault | None) -> str:
    if fault is None:
        return source
    assert fault.old in source, f"the text to change is not there: {fault.old!r}"
    return source.replace(fault.old, fault.new)


def planted(chain: tuple[type, ...], fault: Fault | None) -> Any:
    """A copy of the last class, which inherits from a changed copy of the first, and so on."""
    names: dict[str, Any] = {}
    for position, cls in enumerate(chain):
        source = textwrap.dedent(inspect.getsource(cls))
        source = changed(source, fault) if position == 0 else source
        space = {**vars(sys.modules[cls.__module__]), **names}
        exec(compile(source, f"<{cls.__name__}, changed>", "exec"), space)
        names[cls.__name__] = space[cls.__name__]
    return names[chain[-1].__name__]


def planted_module(module: ModuleType, fault: Fault | None) -> dict[str, Any]:
    """The names of a changed copy of a module."""
    space: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(changed(inspect.getsource(module), fault), "<changed>", "exec"), space)
    return space


def fails(check: Any, problems: Iterator[tuple[Any, ...]]) -> bool:
    """Whether the check finds something; what dies of another error proves nothing."""
    for problem in problems:
        try:
            with np.errstate(all="ignore"):
                check(*problem)
        except NoOracleError:
            raise
        except FAILURES:
            return True
    return False


def problems_of(cls: type) -> tuple[dict[str, Any], Iterator[tuple[Any, ...]]]:
    """The checks for a class, and what to call them with."""
    if issubclass(cls, nn.Layer):
        return LAYER_CHECKS, layer_problems(cls)
    if issubclass(cls, nn.Loss):
        return LOSS_CHECKS, ((problem,) for problem in loss_problems(cls))
    settings = ((cls, own | limits) for own in cls.examples() for limits in LIMITS)
    return OPTIMIZER_CHECKS, settings


# --- in classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", IN_CLASSES, ids=str)
def test_fault_in_a_class_is_caught(fault: Fault) -> None:
    if fault.check in ("recorded", "twin") and _kernels.isa == "reference":
        pytest.skip("the twin alone records nothing, and has nothing to be compared with")
    checks, problems = problems_of(planted(fault.classes, fault))
    assert fails(checks[fault.check], problems), f"{fault.check} does not see it"


CONTROLS = list(dict.fromkeys((fault.classes, fault.check) for fault in IN_CLASSES))


@pytest.mark.parametrize(
    ("chain", "check"), CONTROLS, ids=[f"{c[-1].__name__}-{check}" for c, check in CONTROLS]
)
def test_copy_without_a_fault_passes(chain: tuple[type, ...], check: str) -> None:
    cls = planted(chain, None)
    assert cls is not chain[-1]
    checks, problems = problems_of(cls)
    for problem in problems:
        checks[check](*problem)


# --- in the twin --------------------------------------------------------------------------------


def faulty_twin(fault: Fault) -> dict[str, Any]:
    """All calls of the module in which the kernel's twin is."""
    module = sys.modules[getattr(reference, fault.places[0]).__module__]
    space = planted_module(module, fault)
    return {name: space[name] for name in _kernels.NAMES if name in space}


@pytest.fixture
def on_the_twin() -> Iterator[None]:
    before = _kernels.isa
    _kernels.select("reference")
    yield
    _kernels.select(before)


@pytest.mark.parametrize("fault", IN_KERNELS, ids=str)
def test_fault_in_the_arithmetic_is_caught(
    on_the_twin: None, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    for name, call in faulty_twin(fault).items():
        monkeypatch.setattr(kernels, name, call)
    checks, problems = problems_of(fault.seen)
    assert fails(checks[fault.check], problems), f"{fault.check} does not see it"


@pytest.mark.parametrize("fault", IN_KERNELS, ids=str)
def test_fault_in_the_arithmetic_is_no_longer_the_kernel(
    monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    if _kernels.isa == "reference":
        pytest.skip("no compiled kernels to compare with")
    call = fault.places[0]
    monkeypatch.setattr(reference, call, faulty_twin(fault)[call])
    assert fails(assert_matches_twin, ((call, Draw(seed, np.float64)) for seed in range(15)))


# --- in schedules -------------------------------------------------------------------------------

PLATEAU = {"patience": 3, "factor": 0.5, "cooldown": 3, "smallest": 0.01, "threshold": 0.02}


def schedule_check(space: dict[str, Any]) -> None:
    for schedule in space["EXAMPLES"]:
        schedule_oracle(schedule, space)


def plateau_check(space: dict[str, Any]) -> None:
    for mode in ("min", "max"):
        plateau_oracle(space["ReduceOnPlateau"], mode=mode, **PLATEAU)


SCHEDULE_CHECKS = {"schedule": schedule_check, "plateau": plateau_check}


@pytest.mark.parametrize("fault", IN_SCHEDULES, ids=str)
def test_fault_in_a_schedule_is_caught(fault: Fault) -> None:
    space = planted_module(schedules, fault)
    assert fails(SCHEDULE_CHECKS[fault.check], iter([(space,)]))


@pytest.mark.parametrize("check", SCHEDULE_CHECKS.values(), ids=SCHEDULE_CHECKS)
def test_schedules_without_a_fault_pass(check: Any) -> None:
    check(vars(schedules))


# --- in the monitor -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", IN_MONITOR, ids=str)
def test_fault_in_the_monitor_is_caught(
    on_the_twin: None, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    home = MONITOR_HOMES[fault.places[0]]
    space = planted_module(home, fault)
    for module in (kernels, monitor, probes, records, seen, tracks, watch):
        for name, value in vars(module).copy().items():
            if getattr(value, "__module__", "") == home.__name__ and name in space:
                monkeypatch.setattr(module, name, space[name])
    assert fails(MONITOR_CHECKS[fault.check], iter([(False,)])), f"{fault.check} does not see it"


@pytest.mark.parametrize("check", MONITOR_CHECKS.values(), ids=MONITOR_CHECKS)
def test_monitor_without_a_fault_passes(on_the_twin: None, check: Any) -> None:
    check(False)


# --- in the diagnosis ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", IN_DIAGNOSIS, ids=str)
def test_fault_in_the_diagnosis_is_caught(fault: Fault) -> None:
    space = planted_module(DIAGNOSIS_HOMES[fault.places[0]], fault)
    check = DIAGNOSIS_CHECKS[fault.check]
    assert fails(check, iter([(space,)])), f"{fault.check} does not see it"


@pytest.mark.parametrize(("name", "check"), DIAGNOSIS_CHECKS.items())
def test_diagnosis_without_a_fault_passes(name: str, check: Any) -> None:
    check(vars(DIAGNOSIS_HOMES[name]))


# --- in models with several inputs and outputs --------------------------------------------------


@pytest.mark.parametrize("fault", IN_HEADS, ids=str)
def test_fault_in_heads_is_caught(fault: Fault) -> None:
    space = planted_module(HEAD_HOMES[fault.places[0]], fault)
    check = HEAD_CHECKS[fault.check]
    assert fails(check, iter([(space,)])), f"{fault.check} does not see it"


@pytest.mark.parametrize(("name", "check"), HEAD_CHECKS.items())
def test_heads_without_a_fault_pass(name: str, check: Any) -> None:
    check({key: value for home in HEAD_HOMES.values() for key, value in vars(home).items()})


# --- in saving --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", IN_SAVING, ids=str)
def test_fault_in_saving_is_caught(fault: Fault) -> None:
    space = planted_module(SAVING_HOMES[fault.places[0]], fault)
    check = SAVING_CHECKS[fault.check]
    assert fails(check, iter([(space,)])), f"{fault.check} does not see it"


@pytest.mark.parametrize(("name", "check"), SAVING_CHECKS.items())
def test_saving_without_a_fault_passes(name: str, check: Any) -> None:
    check(vars(SAVING_HOMES[name]))


# --- in what other programs read and write ------------------------------------------------------


@pytest.mark.parametrize("fault", IN_FORMATS, ids=str)
def test_fault_in_what_is_taken_elsewhere_is_caught(fault: Fault) -> None:
    home = ELSEWHERE_HOMES[fault.places[0]]
    with in_place_of(home, lambda: planted_module(home, fault)):
        assert fails(ELSEWHERE_CHECKS[fault.check], iter([()])), f"{fault.check} does not see it"


@pytest.mark.parametrize(
    ("name", "check"), dict.fromkeys((fault.places[0], fault.check) for fault in IN_FORMATS)
)
def test_copy_of_a_module_without_a_fault_passes(name: str, check: str) -> None:
    home = ELSEWHERE_HOMES[name]
    with in_place_of(home, lambda: planted_module(home, None)):
        ELSEWHERE_CHECKS[check]()
    ELSEWHERE_CHECKS[check]()


# --- the planting itself ------------------------------------------------------------------------


def test_there_are_faults_of_everything_and_no_copy_stays() -> None:
    assert len(FAULTS) == len(set(map(str, FAULTS))) >= 150
    for registry in (nn.Layer.registry, nn.Loss.registry, optim.Optimizer.registry):
        for cls in registry:
            if cls.__module__.startswith("minidl."):
                assert getattr(sys.modules[cls.__module__], cls.__name__) is cls


@pytest.mark.parametrize("checks", [LAYER_CHECKS, LOSS_CHECKS, OPTIMIZER_CHECKS])
def test_every_check_catches_something(checks: dict[str, Any]) -> None:
    subjects = [fault for fault in FAULTS if fault not in OF_MODULES]
    caught_by = {fault.check for fault in subjects if problems_of(fault.seen)[0] is checks}
    assert caught_by == checks.keys()


def test_text_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AssertionError, match="not there"):
        planted((nn.ReLU,), Fault(("ReLU",), "none", "oracle", "no such text", ""))
