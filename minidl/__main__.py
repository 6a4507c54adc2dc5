"""``python -m minidl``: the command line."""

from minidl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
