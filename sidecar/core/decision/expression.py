"""Regular expressions of the configuration, searched in bounded time whatever a peer sends.

Python's ``re`` backtracks: ``(a+)+$`` takes 2^n steps for n characters, and the loop is blocked meanwhile. Here an
expression becomes an automaton (Thompson, "Regular Expression Search Algorithm", 1968) whose sets of positions are
built as the text asks for them (Cox, "Regular Expression Matching Can Be Simple And Fast", 2007; RE2 does the same).
Invariant: each character is looked at once, and all sets together take at most ``MOST_STEPS`` steps. What an automaton
cannot say is refused: backreferences, look-around, atomic groups, possessive repetition. A short expression with few
ways to match is left to ``re``, which is as quick there.

``re`` still parses every expression and judges every single character, so that the syntax is Python's.
"""

from __future__ import annotations

import math
import re
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]  # not public; guarded by a test
from typing import Any, Final

__all__ = ["MOST_NODES", "MOST_STEPS", "Expression", "NotRegular"]

MOST_NODES: Final = 2000
"""Nodes of one automaton; a counted repetition is written out."""
MOST_STEPS: Final = 500_000
"""Steps spent on new sets of positions in one search, about 0.1 s; a search that needs more finds nothing."""
MOST_LINKS: Final = 20_000
"""Links remembered between sets of positions, about 2 MB; beyond that the memory starts afresh."""
FEW_STEPS: Final = 512
"""Ways to match at one place, times their length, up to which ``re`` searches: 0.1 s for 64 KiB at worst."""

_NOT_REGULAR: Final = {
    _constants.GROUPREF: "a backreference",
    _constants.GROUPREF_EXISTS: "a conditional group",
    _constants.ASSERT: "look-ahead or look-behind",
    _constants.ASSERT_NOT: "look-ahead or look-behind",
    _constants.ATOMIC_GROUP: "an atomic group",
    _constants.POSSESSIVE_REPEAT: "a possessive repetition",
}
_REPEATS: Final = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)
_BEGINNINGS: Final = (_constants.AT_BEGINNING, _constants.AT_BEGINNING_STRING)


class NotRegular(ValueError):
    """The expression can take very long, and cannot be searched otherwise. The message names the construct."""


class Node:
    """One position of the automaton: a character to read, an assertion, a fork, or the end."""

    __slots__ = ("is_assertion", "judge", "next")

    def __init__(self, judge: re.Pattern[str] | None, *, is_assertion: bool = False) -> None:
        self.judge = judge
        """The test of the character to read, or of the place between two; None: a fork, or the end."""
        self.is_assertion = is_assertion
        self.next: list[Node] = []


class Places:
    """A set of positions that the text so far leads to, and where the next character leads from there."""

    __slots__ = ("before", "following", "nodes")

    def __init__(self, nodes: frozenset[Node], before: str) -> None:
        self.nodes = nodes
        self.before = before
        """The character before, where an assertion may depend on it."""
        self.following: dict[str, Places | None] = {}
        """None: the expression is found."""


class Expression:
    """A compiled expression. Equal to another of the same source. Raises ``re.error`` or ``NotRegular``."""

    __slots__ = ("_begin", "_count", "_end", "_is_anchored", "_links", "_looks_around", "_plain", "_sets", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        plain = re.compile(pattern)
        parsed = _parser.parse(pattern)
        ways, length = _ways(parsed)
        self._plain = plain if ways * length <= FEW_STEPS else None
        if self._plain is not None:
            return
        self._count = 0
        self._links = 0
        self._looks_around = False
        self._end = Node(None)
        flags = parsed.state.flags
        start = self._sequence(parsed, flags, self._end)
        first = parsed[0] if len(parsed) else (None, None)
        self._is_anchored = (
            first[0] is _constants.AT
            and first[1] in _BEGINNINGS
            and (first[1] is _constants.AT_BEGINNING_STRING or not flags & re.MULTILINE)
        )
        self._begin = Places(frozenset({start}), "")
        self._sets: dict[tuple[frozenset[Node], str], Places] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.pattern == other.pattern

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __repr__(self) -> str:
        return f"Expression({self.pattern!r})"

    def __reduce__(self) -> tuple[type[Expression], tuple[str]]:
        return Expression, (self.pattern,)

    def search(self, text: str) -> bool:
        """Whether it is found anywhere in the text, as ``re.search`` says; False if that takes more than
        ``MOST_STEPS``.
        """
        if self._plain is not None:
            return self._plain.search(text) is not None
        places: Places | None = self._begin
        steps = 0
        last_line = text[-1:] == "\n"
        for character in text[:-1] if last_line else text:
            if places is None:
                return True
            if character in places.following:
                places = places.following[character]
                continue
            if not places.nodes or steps > MOST_STEPS:
                return False
            places, cost = self._follow(places, character, character)
            steps += cost
        if places is not None and last_line:
            # ``$`` holds before a line end that ends the text.
            places, _ = self._follow(places, "\n", "\n$")
        return places is None or self._end in self._reached(places, "", "")[0]

    def _follow(self, places: Places, character: str, link: str) -> tuple[Places | None, int]:
        """Where the character leads, and the steps that this took. ``link``: the key under which it is remembered."""
        if link in places.following:
            return places.following[link], 0
        reached, cost = self._reached(places, character, "x" if link == character else "")
        following: Places | None = None
        if self._end not in reached:
            nodes = {
                node.next[0]
                for node in reached
                if node.judge is not None and not node.is_assertion and node.judge.match(character) is not None
            }
            if not self._is_anchored:
                nodes |= self._begin.nodes
            key = frozenset(nodes), character if self._looks_around else ""
            found = self._sets.get(key)
            following = self._sets[key] = Places(*key) if found is None else found
        self._links += 1
        if self._links > MOST_LINKS:
            self._links = 0
            self._sets = {}
            self._begin.following = {}
        places.following[link] = following
        return following, cost

    def _reached(self, places: Places, after: str, beyond: str) -> tuple[set[Node], int]:
        """The positions that are reached without reading, between what is before and what comes ``after``."""
        reached: set[Node] = set()
        left = list(places.nodes)
        between = places.before + after + beyond
        at = len(places.before)
        while left:
            node = left.pop()
            if node in reached:
                continue
            reached.add(node)
            if node.judge is None or (node.is_assertion and node.judge.match(between, at) is not None):
                left += node.next
        return reached, len(reached) + 1

    # -- making the automaton, from its end ---------------------------------------------------------------

    def _node(self, judge: re.Pattern[str] | None, *after: Node, is_assertion: bool = False) -> Node:
        self._count += 1
        if self._count > MOST_NODES:
            raise NotRegular(f"it is larger than {MOST_NODES} positions, counted repetitions written out")
        node = Node(judge, is_assertion=is_assertion)
        node.next = list(after)
        return node

    def _sequence(self, items: Any, flags: int, after: Node) -> Node:
        for item in reversed(items.data):
            after = self._item(item, flags, after)
        return after

    def _item(self, item: Any, flags: int, after: Node) -> Node:
        kind, value = item
        if kind in _NOT_REGULAR:
            raise NotRegular(f"it has {_NOT_REGULAR[kind]}")
        if kind is _constants.SUBPATTERN:
            _, added, removed, items = value
            return self._sequence(items, _compiler._combine_flags(flags, added, removed), after)
        if kind is _constants.BRANCH:
            return self._node(None, *[self._sequence(items, flags, after) for items in value[1]])
        if kind in _REPEATS:
            least, most, items = value
            return self._repeat(least, most, items, flags, after)
        if kind is _constants.AT:
            self._looks_around = True
            return self._node(_judge(item, flags), after, is_assertion=True)
        return self._node(_judge(item, flags), after)

    def _repeat(self, least: int, most: int, items: Any, flags: int, after: Node) -> Node:
        if most is _constants.MAXREPEAT:
            start = self._node(None)
            start.next = [self._sequence(items, flags, start), after]
        else:
            start = after
            for _ in range(most - least):
                start = self._node(None, self._sequence(items, flags, start), after)
        for _ in range(least):
            start = self._sequence(items, flags, start)
        return start


def _judge(item: Any, flags: int) -> re.Pattern[str]:
    """One character or one assertion, as an expression of its own: ``re`` knows its cases and categories."""
    state = _parser.State()
    state.flags = flags
    judge: re.Pattern[str] = _compiler.compile(_parser.SubPattern(state, [item]))
    return judge


def _ways(items: Any) -> tuple[float, float]:
    """In how many ways these items can match at one place, and the length of the longest: what ``re`` may try."""
    ways, length = 1.0, 0.0
    for kind, value in items.data:
        each, long = 1.0, 1.0
        if kind is _constants.SUBPATTERN:
            each, long = _ways(value[3])
        elif kind is _constants.BRANCH:
            each, long = _either(value[1])
        elif kind in _REPEATS or kind is _constants.POSSESSIVE_REPEAT:
            least, most, repeated = value
            each, long = _ways(repeated)
            if most is _constants.MAXREPEAT or most > FEW_STEPS:
                return math.inf, math.inf
            each, long = sum(each**count for count in range(least, most + 1)), long * most
        elif kind in (_constants.ASSERT, _constants.ASSERT_NOT):
            each, long = _ways(value[1])
        elif kind is _constants.ATOMIC_GROUP:
            each, long = _ways(value)
        elif kind is _constants.GROUPREF_EXISTS:
            each, long = _either([branch for branch in value[1:] if branch is not None])
        elif kind is _constants.GROUPREF:
            long = FEW_STEPS / 4
        ways, length = ways * each, length + long
    return ways, length


def _either(branches: list[Any]) -> tuple[float, float]:
    found = [_ways(branch) for branch in branches]
    return sum(ways for ways, _ in found), max(length for _, length in found)
