"""Ids: the app's own if they are sane, else new ones that nobody has seen before."""

from __future__ import annotations

import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy.message.ids import LONGEST, PAGE_BYTES, SANE, idempotency_key, new_id, sane
from tests.core.making import short, steady
from tests.support.structured import members


@pytest.mark.parametrize(
    "value",
    ["a", "0", "req-1", "a" * LONGEST, str(uuid.UUID(int=7)), "a:b/c+d=", "|x.y_z~", "01HZX?&#", SANE[:64]],
    ids=short,
)
def test_a_sane_id_is_kept(value: str) -> None:
    assert sane(value)


@pytest.mark.parametrize(
    "value",
    [None, *map("a{}b".format, " ,;\"'`\\<>[]{}\t\n\x00\x7f"), "", " ", "ä", "\udcff", "a" * (LONGEST + 1), "٣"],
    ids=short,
)
def test_what_could_steer_a_log_or_a_shell_is_not(value: str | None) -> None:
    assert not sane(value)


@steady
@given(st.text(max_size=12))
def test_sane_means_only_of_those_characters(value: str) -> None:
    assert sane(value) is (bool(value) and all(character in SANE for character in value))


@steady
@given(st.text(alphabet=SANE, min_size=1, max_size=4), st.characters().filter(lambda c: c not in SANE))
def test_one_bad_character_anywhere_spoils_it(value: str, bad: str) -> None:
    for at in range(len(value) + 1):
        assert not sane(value[:at] + bad + value[at:])


def test_new_ids_are_32_hexadecimal_digits_and_differ() -> None:
    made = [new_id() for _ in range(3 * PAGE_BYTES // 16)]
    assert len(set(made)) == len(made)
    assert all(len(each) == 32 and not each.strip(string.hexdigits) and sane(each) for each in made)


def test_a_key_is_a_bare_uuid_or_a_structured_string() -> None:
    bare, quoted = idempotency_key("uuid"), idempotency_key("quoted")
    assert uuid.UUID(bare).version == 4
    ((text, parameters),) = members(quoted)
    assert uuid.UUID(text).version == 4
    assert parameters == {}
    assert quoted == f'"{text}"'
    assert idempotency_key("uuid") != bare
