"""Damaged and hostile files: each is read, or refused by one error, in little time and memory.

A sample runs with all other tests. ``make fuzz-files`` runs 120,000 files for ``minidl.load``,
10,000 for ``Trainer.load``, 20,000 for ``datasets.idx`` and 2,000 for ``minidl sample``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("file_fuzzing.py")
WHOLE = {"model": 100_000, "whole": 20_000, "training": 10_000, "idx": 20_000, "sample": 2_000}
SAMPLE = {"model": 1_000, "whole": 300, "training": 200, "idx": 300, "sample": 150}
SEVERAL = "MINIDL_FUZZ_FILES" in os.environ

pytest.importorskip("resource", reason="limits of memory are those of POSIX systems")


@pytest.mark.parametrize("kind", WHOLE)
def test_files_are_read_or_refused(kind: str) -> None:
    count = (WHOLE if SEVERAL else SAMPLE)[kind]
    done = subprocess.run(
        [sys.executable, SCRIPT, kind, str(count)],
        capture_output=True,
        text=True,
        cwd=SCRIPT.parents[1],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if SEVERAL:
        print(done.stdout, end="")
    results = json.loads(done.stdout)
    assert results["read"] + results["refused"] == count
    assert results["read"] > count // 30, "hardly a file was read: little was tried"
    assert results["refused"] > count // 3


@pytest.mark.parametrize("damage", ["hidden", "layers", "numbers"])
def test_the_command_in_a_process_of_its_own(tmp_path: Path, damage: str) -> None:
    """As users run it: a status, a line, no traceback, and no more memory than there is."""
    program = (
        "import resource, sys, numpy as np; sys.path.insert(0, 'tests'); import file_fuzzing as f;"
        "resource.setrlimit(resource.RLIMIT_AS, (f.MEMORY, f.MEMORY));"
        "attempt = f.Sample(f.Path(sys.argv[1])); draft = f.Draft(attempt.bases[0])\n"
        "if sys.argv[2] == 'numbers': draft.data[:] = b'\\xff' * len(draft.data)\n"
        "else: draft.words[sys.argv[2]] = '99999999'\n"
        "attempt.path.write_bytes(draft.build()); sys.exit(f.command(['sample', attempt.path]))"
    ).replace("['sample', attempt.path]", "['sample', str(attempt.path)]")
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path, damage],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=SCRIPT.parents[1],
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("minidl: error: ")
    assert len(done.stderr.splitlines()) == 1
