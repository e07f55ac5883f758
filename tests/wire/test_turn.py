"""Small writes of one turn of the loop: together at its end, in order, and never more than so many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.wire.write_batch import FEW, MOST, WriteBatch


def crowded() -> WriteBatch:
    write_batch = WriteBatch(asyncio.get_running_loop())
    write_batch.under_way = FEW
    return write_batch


class Noting:
    """A writer that notes when it is asked."""

    def __init__(self, name: str, notes: list[str], then: Callable[[], None] | None = None) -> None:
        self.name = name
        self.notes = notes
        self.then = then

    def write_out(self) -> None:
        self.notes.append(self.name)
        if self.then is not None:
            self.then()


async def test_writers_are_asked_in_order_when_the_turn_is_over() -> None:
    write_batch, notes = crowded(), list[str]()
    for name in "abc":
        write_batch.add(Noting(name, notes))
    assert notes == []
    await asyncio.sleep(0)
    assert notes == ["a", "b", "c"]
    write_batch.add(Noting("d", notes))
    await asyncio.sleep(0)
    assert notes == ["a", "b", "c", "d"]


async def test_what_is_added_at_the_end_belongs_to_the_next_turn() -> None:
    write_batch, notes = crowded(), list[str]()
    write_batch.add(Noting("first", notes, lambda: write_batch.add(Noting("next", notes))))
    write_batch.add(Noting("second", notes))
    await asyncio.sleep(0)
    assert notes == ["first", "second"]
    await asyncio.sleep(0)
    assert notes == ["first", "second", "next"]


async def test_the_end_of_a_long_turn_is_not_awaited() -> None:
    write_batch, notes = crowded(), list[str]()
    for number in range(MOST):
        write_batch.add(Noting(str(number), notes))
    assert notes == []
    write_batch.add(Noting("more", notes))
    assert notes == [str(number) for number in range(MOST)]
    await asyncio.sleep(0)
    assert notes[-1] == "more"
    assert len(notes) == MOST + 1


async def test_where_hardly_anything_is_under_way_nothing_waits() -> None:
    write_batch, notes = crowded(), list[str]()
    write_batch.under_way = FEW - 1
    write_batch.add(Noting("a", notes))
    assert notes == ["a"]
    write_batch.under_way = FEW
    write_batch.add(Noting("b", notes))
    write_batch.under_way = 0
    write_batch.add(Noting("c", notes))  # in order all the same
    assert notes == ["a"]
    await asyncio.sleep(0)
    assert notes == ["a", "b", "c"]
