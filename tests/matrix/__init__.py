"""The fault matrix: what comes of each hostile input and each fault, and the tests that show it.

``rows`` is the data, ``page`` makes ``docs/faults.md`` of it (``python -m tests.matrix`` writes it).
"""
