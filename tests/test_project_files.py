"""What is said in two files of the project is the same in both."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOOKS = ROOT / ".pre-commit-config.yaml"
CI = ROOT / ".github" / "workflows" / "ci.yml"

pytestmark = pytest.mark.skipif(not CI.exists(), reason="a copy without the files of the project")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_hooks_run_the_linters_of_make_lint() -> None:
    revisions = re.findall(r"repo: \S*/(\S+)\n *rev: v([\d.]+)", HOOKS.read_text(encoding="utf-8"))
    names = {"ruff-pre-commit": "ruff", "mirrors-mypy": "mypy"}
    hooks = {names.get(repository, repository): version for repository, version in revisions}
    for requirement in project()["dependency-groups"]["lint"]:
        linter, version = requirement.removesuffix("*").split("==")
        assert f"{hooks[linter]}.".startswith(version), f"{linter} {hooks[linter]}: {requirement}"


def test_wheels_are_built_for_the_pythons_that_are_tested() -> None:
    tested = re.search(r"python: (\[.*\])", CI.read_text(encoding="utf-8")).group(1)
    versions = re.findall(r"3\.\d+", tested)
    build = project()["tool"]["cibuildwheel"]["build"]
    assert build == [f"cp{version.replace('.', '')}-*" for version in versions]
    assert project()["project"]["requires-python"] == f">={versions[0]}"
