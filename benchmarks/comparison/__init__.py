"""Compare minidl with other libraries at the same work, for ``benchmarks/peers.py``.

A *suite* is a list of *tasks* (``suites.py``). A module of ``libraries/`` has a function of the
suite's name for each suite that its library supports. The function yields the *contenders* for a
task: calls that do the same work. ``measuring.py`` times all contenders for a task in alternating
rounds of one process, ``report.py`` prints their ratios.

A library may have several contenders under one name, with different settings: the fastest counts.

To add a suite, describe it in ``suites.py``, and write a function of its name in the libraries that
can do the work. To add a library, write a module in ``libraries/``, and add its columns to
``suites.py``.
"""
