"""The file: what is added is there, limits hold, totals agree with the rows, and a damaged file is left as it is."""

from __future__ import annotations

import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.settings.deployment import OutboxRule
from sidecar.outbox.items import Item, OutboxError, Refusal
from sidecar.outbox.sqlite import SqliteOutbox

ITEM = Item("a" * 32, "api", "POST", "/v1/x?y=1", b"Host: a\r\n", b"body", 1000.0)


def item(number: int, upstream: str = "api", **changes: object) -> Item:
    return replace(ITEM, id=f"{number:032x}", upstream=upstream, **changes)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "outbox.db")


@pytest.fixture
def rule(path: str) -> OutboxRule:
    return OutboxRule(path)


def test_what_was_added_is_there_after_opening_it_again(path: str, rule: OutboxRule) -> None:
    odd = replace(ITEM, target="/caf\udce9?x=%00", fields=b"X: \xff\r\n", body=bytes(range(256)))
    outbox_file = SqliteOutbox.open(path)
    outbox_file.add(odd, rule)
    outbox_file.close()
    outbox_file = SqliteOutbox.open(path)
    assert outbox_file.find(odd.id) == odd
    assert outbox_file.next("api", 5000.0) == (odd, 0.0)
    assert outbox_file.next("other", 5000.0) == (None, None)
    outbox_file.close()


def test_a_commit_is_durable_before_it_returns(path: str) -> None:
    outbox_file = SqliteOutbox.open(path)
    assert outbox_file._row("PRAGMA journal_mode") == ("wal",)
    assert outbox_file._row("PRAGMA synchronous") == (2,)
    assert outbox_file._row("PRAGMA secure_delete") == (1,)
    outbox_file.close()


def test_the_file_is_its_owners_alone_also_if_it_was_not(path: str) -> None:
    SqliteOutbox.open(path).close()
    Path(path).chmod(0o644)
    SqliteOutbox.open(path).close()
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_one_change_that_is_refused_leaves_the_others(path: str) -> None:
    rule = OutboxRule(path, max_count=2)
    outbox_file = SqliteOutbox.open(path)
    results = outbox_file.together([lambda n=n: outbox_file.add(item(n), rule) for n in range(4)])  # type: ignore[misc]
    assert [isinstance(result, Refusal) for result in results] == [False, False, True, True]
    assert outbox_file.ids() == [item(0).id, item(1).id]
    outbox_file.close()


def test_dead_letters_count_against_the_limit_until_somebody_drops_them(path: str) -> None:
    rule = OutboxRule(path, max_count=1)
    outbox_file = SqliteOutbox.open(path)
    outbox_file.add(item(1), rule)
    outbox_file.mark_dead(item(1).id, "expired", None, "", 2000.0)
    with pytest.raises(Refusal):
        outbox_file.add(item(2), rule)
    outbox_file.remove(item(1).id)
    outbox_file.add(item(2), rule)
    outbox_file.close()


def test_a_revived_letter_waits_at_its_old_place_and_is_young_again(path: str, rule: OutboxRule) -> None:
    outbox_file = SqliteOutbox.open(path)
    for number in (1, 2):
        outbox_file.add(item(number), rule)
    assert outbox_file.mark_older_dead(1500.0, 2000.0) == [("api", item(1).id), ("api", item(2).id)]
    assert outbox_file.next("api", 5000.0) == (None, None)
    assert outbox_file.revive(item(1).id, 3000.0)
    assert not outbox_file.revive(item(1).id, 3000.0)
    assert outbox_file.mark_older_dead(1500.0, 3000.0) == []
    found, _ = outbox_file.next("api", 5000.0)
    assert found is not None
    assert (found.id, found.stored_at) == (item(1).id, 1000.0)
    outbox_file.close()


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "bury", "revive", "remove"]), st.integers(0, 5), st.sampled_from("ab")),
        max_size=40,
    )
)
def test_totals_agree_with_the_rows_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, str]]
) -> None:
    path = str(tmp_path_factory.mktemp("shelf") / "outbox.db")
    outbox_file, rule = SqliteOutbox.open(path), OutboxRule(path)
    for step, number, upstream in steps:
        each = item(number, upstream)
        if step == "add" and outbox_file.find(each.id) is None:
            outbox_file.add(each, rule)
        elif step == "bury":
            outbox_file.mark_dead(each.id, "expired", None, "", 1.0)
        elif step == "revive":
            outbox_file.revive(each.id, 1.0)
        elif step == "remove":
            outbox_file.remove(each.id)
    items = [found for item_id in outbox_file.ids() if (found := outbox_file.find(item_id)) is not None]
    told = {count.upstream: (count.waiting, count.dead, count.bytes) for count in outbox_file.counts()}
    assert told == {
        name: (
            sum(i.dead_at is None for i in items if i.upstream == name),
            sum(i.dead_at is not None for i in items if i.upstream == name),
            sum(i.size_bytes for i in items if i.upstream == name),
        )
        for name in {i.upstream for i in items}
    }
    outbox_file.close()


def damage(path: str) -> bytes:
    """Overwrite the middle of a whole outbox; returns what stands there now."""
    outbox_file = SqliteOutbox.open(path)
    for number in range(200):
        outbox_file.add(item(number, body=b"x" * 500), OutboxRule(path))
    outbox_file.close()
    data = bytearray(Path(path).read_bytes())
    data[8192 : len(data) - 4096] = b"\xa5" * (len(data) - 4096 - 8192)
    Path(path).write_bytes(data)
    return bytes(data)


def test_a_damaged_file_is_refused_with_the_remedy_and_left_as_it_is(path: str) -> None:
    before = damage(path)
    with pytest.raises(OutboxError, match=r"is damaged .* move it away, .* \.recover"):
        SqliteOutbox.open(path)
    assert Path(path).read_bytes() == before


def test_what_is_no_database_is_refused_and_left_as_it_is(path: str) -> None:
    Path(path).write_bytes(b"not a database at all, but somebody's notes\n" * 100)
    before = Path(path).read_bytes()
    with pytest.raises(OutboxError, match=r"is damaged \(file is not a database\)"):
        SqliteOutbox.open(path)
    assert Path(path).read_bytes() == before


def test_another_database_is_refused_and_left_as_it_is(path: str) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE theirs (x)")
    database.close()
    before = Path(path).read_bytes()
    with pytest.raises(OutboxError, match="no outbox"):
        SqliteOutbox.open(path)
    assert Path(path).read_bytes() == before


def test_a_newer_outbox_is_refused(path: str) -> None:
    outbox_file = SqliteOutbox.open(path)
    outbox_file._database.execute("PRAGMA user_version = 99")
    outbox_file.close()
    with pytest.raises(OutboxError, match="newer version"):
        SqliteOutbox.open(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing/outbox.db", "does not exist: make it, or mount it"),
        (".", "not a regular file"),
    ],
)
def test_a_place_that_cannot_hold_it_is_said_in_a_sentence(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(OutboxError, match=said):
        SqliteOutbox.open(str(tmp_path / name))


def test_looking_into_an_outbox_that_is_not_there_makes_none(path: str) -> None:
    with pytest.raises(OutboxError, match="nothing has ever been stored"):
        SqliteOutbox.open(path, create=False)
    assert not Path(path).exists()


def test_an_empty_file_of_a_start_that_was_cut_short_is_set_up(path: str, rule: OutboxRule) -> None:
    Path(path).touch()
    outbox_file = SqliteOutbox.open(path)
    outbox_file.add(ITEM, rule)
    outbox_file.close()


def test_an_outbox_of_the_first_version_is_brought_up_to_date(path: str, rule: OutboxRule) -> None:
    outbox_file = SqliteOutbox.open(path)
    outbox_file.add(ITEM, rule)
    for column in ("due_at", "aside"):
        outbox_file._database.execute(f"ALTER TABLE item DROP COLUMN {column}")
    outbox_file._database.execute("PRAGMA user_version = 1")
    outbox_file.close()
    for _ in range(2):
        outbox_file = SqliteOutbox.open(path)
        assert outbox_file.next("api", 5000.0) == (ITEM, 0.0)
        outbox_file.close()


def test_one_that_is_set_aside_takes_turns_with_the_rest_which_keeps_its_order(path: str, rule: OutboxRule) -> None:
    outbox_file = SqliteOutbox.open(path)
    for number in (1, 2, 3):
        outbox_file.add(item(number), rule)
    outbox_file.put_off(item(1).id, "500", tries=8, due_at=10.0, aside=True)
    outbox_file.put_off(item(2).id, "503", tries=1, due_at=20.0, aside=False)

    def turn(now: float, *, after_aside: bool) -> tuple[str, float | None]:
        found, due_at = outbox_file.next("api", now, after_aside=after_aside)
        return found.id[-1] if found is not None else "", due_at

    assert turn(5.0, after_aside=False) == ("", 10.0)
    assert turn(15.0, after_aside=True) == ("1", 10.0)
    assert turn(25.0, after_aside=True) == ("2", 10.0)
    assert turn(25.0, after_aside=False) == ("1", 10.0)
    outbox_file.close()
