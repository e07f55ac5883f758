"""The fault matrix is whole, its tests exist, and the page is what it gives."""

from __future__ import annotations

from tests.matrix.page import PAGE, homes, node_of, page
from tests.matrix.rows import FAULTS, INPUTS


def test_every_number_is_there_once_and_in_order() -> None:
    assert [row.number for row in INPUTS] == list(range(1, 95))
    assert [row.number for row in FAULTS] == list(range(1, 56))


def test_every_row_says_what_happens_and_names_tests_that_exist() -> None:
    known = homes()
    for row in (*INPUTS, *FAULTS):
        assert all((row.what, row.app, row.upstream, row.tests)), row
        for test in row.tests:
            node_of(test, known)


def test_the_page_is_what_the_rows_give() -> None:
    """Else: ``python -m tests.matrix``."""
    assert PAGE.read_text(encoding="utf-8") == page()
