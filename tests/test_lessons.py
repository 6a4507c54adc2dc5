"""docs/lessons tells the truth, in both languages: its programs run and print what it shows.

Numbers must be those that the page shows. The last digit may differ by one only where a program
amplifies roundings, as a training does: other instruction sets round differently.
"""

from __future__ import annotations

import ast
import codeop
import inspect
import io
import re
import shlex
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from minidl import lab
from minidl.cli import _parser

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "docs" / "lessons").glob("[0-9]*.md"))
PAGES = sorted((ROOT / "docs" / "lessons").rglob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
AMPLIFIES = re.compile(  # a training; the descent that meets a cliff; a small difference to 1
    r"\.fit\(|\bdiagnose\(|\bdescend\(|1 - y\.item\(\)"
)
NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def of_lesson(path: Path) -> str:
    return path.stem


def of_page(path: Path) -> str:
    return str(path.relative_to(ROOT / "docs" / "lessons"))


def blocks(path: Path, *languages: str) -> list[tuple[str, str]]:
    """Language and text of every block in these languages."""
    found = FENCE.findall(path.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if language in languages]


def chinese(lesson: Path) -> Path:
    return lesson.parent / "zh" / lesson.name


# --- programs -------------------------------------------------------------------------------


def last_digit(number: str) -> float:
    """How much one in the last digit is: 0.01 of 2.71, 1e-9 of 3.2e-8."""
    mantissa, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def assert_same_output(printed: str, shown: str, amplified: bool = False) -> None:
    """The words and numbers are equal; where roundings are amplified, but for the last digit."""
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split(), printed
    for is_, said in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        tolerance = 1.01 * last_digit(said) if amplified else 0.0
        assert abs(float(is_) - float(said)) <= tolerance, f"{is_}, not {said}"


@pytest.mark.parametrize("lesson", LESSONS, ids=of_lesson)
def test_programs_print_what_the_lesson_shows(lesson: Path) -> None:
    names: dict[str, Any] = {}
    printed, amplified = io.StringIO(), False
    for language, text in blocks(lesson, "python", "text"):
        if language == "python":
            amplified = amplified or AMPLIFIES.search(text) is not None
            with redirect_stdout(printed):
                exec(compile(text, lesson.name, "exec"), names)
        else:
            assert_same_output(printed.getvalue(), text, amplified)
            printed, amplified = io.StringIO(), False
    assert not printed.getvalue(), "is printed, but not shown"


def test_a_wrong_digit_or_word_is_seen() -> None:
    output = "x 0.123 3.1e-9 [-2.  3.]"
    assert_same_output(output, "x 0.123 3.1e-09  [-2. 3.]")
    one_off = "x 0.124 3.2e-9 [-2. 3.]"
    assert_same_output(output, one_off, amplified=True)
    with pytest.raises(AssertionError):
        assert_same_output(output, one_off)
    for wrong in ("x 0.125 3.1e-9 [-2. 3.]", "x 0.123 3.3e-9 [-2. 3.]", "x 0.123 3.1e-9 [2. 3.]"):
        with pytest.raises(AssertionError):
            assert_same_output(output, wrong, amplified=True)
    with pytest.raises(AssertionError):
        assert_same_output("y 1", "x 1")


@pytest.mark.parametrize("lesson", LESSONS, ids=of_lesson)
def test_programs_can_be_pasted_into_the_interpreter(lesson: Path) -> None:
    # It ends a loop or a function at an empty line, and only there.
    for _, text in blocks(lesson, "python"):
        lines: list[str] = []
        for line in [*text.splitlines(), ""]:
            lines.append(line)
            if codeop.compile_command("\n".join(lines), symbol="single") is not None:
                lines = []
        assert not any(lines), text


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_commands_are_understood(page: Path) -> None:
    commands = [line for _, text in blocks(page, "sh") for line in text.splitlines()]
    commands += re.findall(r"`(minidl [a-z][^`]*)`", page.read_text(encoding="utf-8"))
    for line in commands:
        program, *arguments = shlex.split(line, comments=True)
        if program == "minidl":
            assert callable(_parser().parse_args(arguments).run), line


# --- arithmetic in the text -----------------------------------------------------------------

PLAIN = r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?"
POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
FACTOR = rf"√?\(?{PLAIN}[{POWERS}]*\)?[{POWERS}]*"
SUM = rf"{FACTOR}(?: [·+/-] {FACTOR}|/{FACTOR})*"
EQUATION = re.compile(  # between numbers alone: "0.5 · 5 + 0.2 = 2.7" is one, "z = 2.7" is not
    rf"(?<![·+/-] )(?<![\w.,(/√^{POWERS}-])({SUM}) = "
    rf"(?=({PLAIN}(?: · 10[{POWERS}]+)?)(?!\d|[{POWERS}]| [·/+-] ))"
)


def evaluated(text: str) -> float:
    """The value of numbers with + - · / √ and powers."""
    if text.count("(") > text.count(")"):
        text = text.lstrip("(")
    text = text.replace(",", "").replace("·", "*")
    digits = str.maketrans(POWERS, "0123456789-")
    text = re.sub(rf"[{POWERS}]+", lambda power: f"**{power[0].translate(digits)}", text)
    return float(eval(re.sub(r"√(\([^()]*\)|[\d.]+)", r"\1**0.5", text)))


def test_arithmetic_in_the_text_is_right() -> None:
    checked = 0
    for lesson in LESSONS:
        prose = FENCE.sub("", lesson.read_text(encoding="utf-8")).replace("**", "")
        for left, right in EQUATION.findall(re.sub(r"\n>? *(?=\S)", " ", prose)):
            if re.fullmatch(PLAIN, left):
                continue
            number, _, power = right.replace(",", "").partition(" · ")
            unit = last_digit(number) * (evaluated(power) if power else 1)
            assert abs(evaluated(left) - evaluated(right)) <= 1.01 * unit, f"{left} = {right}"
            checked += 1
    assert checked >= 60


WITH_LESSON = {
    name: int(number[1])
    for name, what in lab.EXPERIMENTS.items()
    if (number := re.match(r"lesson (\d+):", what)) and name != "landscape"  # a picture alone
}


@pytest.mark.parametrize("name", WITH_LESSON)
def test_numbers_that_an_experiment_quotes_stand_in_its_lesson(name: str) -> None:
    text = LESSONS[WITH_LESSON[name] - 1].read_text(encoding="utf-8")
    told = [float(number.replace("−", "-")) for number in NUMBER.findall(text.replace(",", ""))]
    compute = lab.module(name).compute
    short = {"epochs": 1} if "epochs" in inspect.signature(compute).parameters else {}
    if name == "resnet":
        short["depth"] = 8  # it quotes what theory says, which is computed without training
    for quoted in compute(**short).quoted():
        half = last_digit(quoted.quoted) / 2 * 1.01
        assert any(abs(number - float(quoted.quoted)) <= half for number in told), quoted


# --- pages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_links_and_figures_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_lines_are_short(page: Path) -> None:
    lines = [line for _, text in blocks(page, "python", "sh") for line in text.splitlines()]
    if page.parent.name != "zh":  # where a line break within a paragraph would show as a space
        prose = FENCE.sub("", page.read_text(encoding="utf-8"))
        lines += [line for line in prose.splitlines() if not line.startswith(("|", "!["))]
    assert [line for line in lines if len(line) > 105] == []


@pytest.mark.parametrize("lesson", LESSONS, ids=of_lesson)
def test_no_line_of_a_paragraph_looks_like_an_item_of_a_list(lesson: Path) -> None:
    prose = FENCE.sub("", lesson.read_text(encoding="utf-8"))
    assert re.findall(r"^(?:\d+\. .*|[^\s>|#-].*\n[-+*] .*)", prose, re.MULTILINE) == []


@pytest.mark.parametrize("lesson", LESSONS, ids=of_lesson)
def test_every_lesson_has_a_figure_and_exercises_with_solutions(lesson: Path) -> None:
    text = lesson.read_text(encoding="utf-8")
    assert len(re.findall(r"^!\[.+\]\(figures/[\w-]+\.\w+\)$", text, re.MULTILINE)) >= 1
    assert re.search(r"`minidl lab [\w-]+.* --plot FILE`", text)
    number = int(lesson.name[:2])
    exercises = re.findall(rf"^\*\*{number}\.(\d)\*\*", text, re.MULTILINE)
    assert exercises in (["1", "2"], ["1", "2", "3"])
    assert text.count("<details>") == text.count("</details>") == len(exercises)


def test_every_figure_is_drawn_by_an_experiment_of_its_name_and_shown() -> None:
    figures = {path.stem for path in (ROOT / "docs" / "lessons" / "figures").iterdir()}
    shown = "".join(page.read_text("utf-8") for page in (*LESSONS, ROOT / "docs" / "depth.md"))
    assert figures == {name for name in lab.EXPERIMENTS if f"figures/{name}.png)" in shown}
    assert figures == set(lab.EXPERIMENTS)


def test_every_lesson_is_listed_in_both_languages() -> None:
    assert len(LESSONS) == 13
    for folder in (LESSONS[0].parent, LESSONS[0].parent / "zh"):
        index = (folder / "README.md").read_text(encoding="utf-8")
        assert re.findall(r"^\d+\. \[.+\]\((\d\d-.+\.md)\)", index, re.MULTILINE) == [
            lesson.name for lesson in LESSONS
        ]
        assert sorted(path.name for path in folder.glob("[0-9]*.md")) == [
            lesson.name for lesson in LESSONS
        ]


# --- the two languages ----------------------------------------------------------------------


@pytest.mark.parametrize("lesson", LESSONS, ids=of_lesson)
def test_both_languages_have_the_same_programs_and_outputs(lesson: Path) -> None:
    english, other = (blocks(page, "python", "text", "sh") for page in (lesson, chinese(lesson)))
    assert [language for language, _ in english] == [language for language, _ in other]
    for (language, text), (_, translated) in zip(english, other, strict=True):
        if language == "python":  # comments are translated
            assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(translated))
        else:
            assert text == translated


def sections(page: Path) -> list[str]:
    """The prose between headings: no fenced blocks, no names of files."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.split(r"^#+ ", re.sub(r"\]\([^)]*\)", "", prose), flags=re.MULTILINE)


def numbers(section: str) -> Counter[str]:
    return Counter(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?|[⁰¹²³⁴-⁹⁻]+", section))


@pytest.mark.parametrize("lesson", LESSONS, ids=of_lesson)
def test_both_languages_tell_the_same_numbers(lesson: Path) -> None:
    for english, other in zip(sections(lesson), sections(chinese(lesson)), strict=True):
        assert numbers(english) == numbers(other), english.partition("\n")[0]


@pytest.mark.parametrize("lesson", LESSONS, ids=of_lesson)
def test_both_languages_show_the_same_formulas_and_figures(lesson: Path) -> None:
    texts = [page.read_text(encoding="utf-8") for page in (lesson, chinese(lesson))]
    figures = [re.findall(r"^!\[.+\]\((?:\.\./)?(figures/.+)\)$", t, re.MULTILINE) for t in texts]
    spans = [Counter(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", t))) for t in texts]
    assert figures[0] == figures[1]
    assert spans[0] == spans[1]
