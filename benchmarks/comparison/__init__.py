"""What ``benchmarks/peers.py`` runs: minidl and other libraries at the same work, side by side.

A *suite* is a list of *tasks* (``suites.py``). A module of ``libraries/`` has, for each suite that
its library can take part in, a function of the suite's name, which yields the *contenders* for
a task: calls that do the same work. ``measuring.py`` times all contenders for a task in
alternating rounds of one process, ``report.py`` prints their ratios.

A library may send several contenders under one name, at different settings: the fastest counts.

To add a suite: an entry in ``suites.py``, and a function of its name in the libraries that can
do the work. To add a library: a module in ``libraries/`` and its columns in ``suites.py``.
"""
