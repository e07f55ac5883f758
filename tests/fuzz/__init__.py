"""The machine that looks for faults: random conversations on a virtual clock, and over real sockets.

``loop`` is the virtual clock and network, ``plans`` what happens in a run, ``world`` the run itself and what must hold
in it, ``shrink`` makes a failing run small; ``process`` is the same spirit over real sockets, against a process that is
reloaded, stopped and killed. ``python -m tests.fuzz`` is ``make fuzz``.
"""
