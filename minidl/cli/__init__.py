"""The command line: ``minidl`` or ``python -m minidl``.

``main`` returns an exit status: 0 for success, 1 for a failed check or
training, output that cannot be written or too little memory, 2 for wrong arguments or data, 130
after Ctrl-C, 141 when the reader of the output has gone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from minidl.settings import SettingError

INTERRUPTED = 130  # 128 + SIGINT, as shells count
BROKEN_PIPE = 141  # 128 + SIGPIPE
LOSSY = {"backslashreplace", "ignore", "namereplace", "replace", "xmlcharrefreplace"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    argv
        Arguments without the name of the program; None for those of the process.

    Examples
    --------
    >>> from minidl.cli import main
    >>> main(["check", "no-such-layer"])
    2
    """
    if sys.stdout is None:
        return _fail("standard output is closed", 1)
    try:
        with _printable_output():
            status = _run(argv)
            sys.stdout.flush()
            return status
    except SettingError as error:
        return _fail(str(error), 2)
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        _discard_output()
        # Files that the user named have been reported by name; this one has none, as a rule.
        named = f"cannot write {error.filename}: {error.strerror}"
        return _fail(named if error.filename else f"cannot write output: {error}", 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(argv: Sequence[str] | None) -> int:
    # These imports load the kernels, which may find wrong settings.
    from minidl.cli.options import UsageError

    try:
        arguments = _parser().parse_args(argv)
        arguments.own_process = argv is None
        status: int = arguments.run(arguments)
        return status
    except SystemExit as stop:  # argparse has printed help, the version, or an error
        return stop.code if isinstance(stop.code, int) else 2
    except UsageError as error:
        return _fail(str(error), 2)
    except FloatingPointError as error:
        print(f"minidl: training failed: {error}", file=sys.stderr)
        return 1
    except (MemoryError, OverflowError) as error:  # sizes beyond what there is, or what can be
        why = f": {error}" if str(error) else ""
        return _fail(f"there is not enough memory for this{why}", 1)


def _fail(message: str, status: int) -> int:
    with contextlib.suppress(OSError):  # standard error may be what cannot be written
        print(f"minidl: error: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    from minidl.cli import bench, checking, diagnose, doctor, lab, predicting, saved, text, train

    parser = argparse.ArgumentParser(
        prog="minidl", description="Small neural networks, trained fast on a CPU."
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    train.add_command(commands)
    diagnose.add_command(commands)
    text.add_command(commands)
    saved.add_info(commands)
    predicting.add_predict(commands)
    checking.add_command(commands)
    bench.add_command(commands)
    lab.add_command(commands)
    doctor.add_command(commands)
    return parser


class _Version(argparse.Action):
    """Prints the version, which is imported only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import minidl

        print(f"minidl {minidl.__version__}")
        parser.exit()


@contextlib.contextmanager
def _printable_output() -> Iterator[None]:
    """Replace characters that the terminal or file cannot show, instead of failing on them."""
    changed = []
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors not in LOSSY:
            changed.append((stream, stream.errors))
            stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream, errors in changed:
            # This flushes. If the reader has gone, `main` has caught that already.
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors=errors)


def _discard_output() -> None:
    # Python flushes standard output once more at exit, and would complain about the pipe.
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
