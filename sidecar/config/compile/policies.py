"""Policies by name: where they are, what they extend, and the result of both.

A policy is looked for in ``policies/`` beside ``sidecar.yaml``, then among the shipped ones. Its chain is itself and
what it extends; the first file that writes a setting decides it, and rows are in that order.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.config.schema.fields import Block, clip
from sidecar.config.schema.policy import PolicyBlock
from sidecar.config.schema.row import RowBlock
from sidecar.config.schema.validate import read_block
from sidecar.config.text.document import Document, Mark
from sidecar.config.text.files import Files, shipped_policies
from sidecar.config.text.problems import Code, Problem, nearest

__all__ = ["Chain", "Library", "Source", "overlay"]


@dataclass(frozen=True, slots=True)
class Source:
    """One policy file, as far as it is valid."""

    name: str
    path: Path
    document: Document
    block: PolicyBlock


@dataclass(frozen=True)
class Chain:
    """A policy and what it extends, nearest first."""

    name: str
    sources: tuple[Source, ...]
    settings: PolicyBlock = field(compare=False)
    """The settings in force, with defaults; for its table use ``rows``."""

    @property
    def rows(self) -> list[tuple[Source, RowBlock]]:
        return [(source, row) for source in self.sources for row in source.block.table]

    def mark(self, *keys: str) -> Mark | None:
        """Where the value in force is written; None for a default."""
        source = self.source_of(*keys)
        return _mark(source.block, keys) if source is not None else None

    def source_of(self, *keys: str) -> Source | None:
        """The file that sets this value; None for a default."""
        for source in self.sources:
            if _mark(source.block, keys):
                return source
            block = getattr(source.block, keys[0])
            if source.block.sets(keys[0]) and isinstance(block, Block) and block.whole:
                return None
        return None


class Library:
    """Reads each policy once and keeps what it found wrong."""

    def __init__(self, files: Files, own: Path | None, shipped: Path | None = None) -> None:
        self.files = files
        self.directories = [path for path in (own, shipped or shipped_policies()) if path is not None]
        self.problems: list[Problem] = []
        self._sources: dict[Path, Source | None] = {}
        self._chains: dict[Path, Chain | None] = {}

    @property
    def chains(self) -> list[Chain]:
        """Every policy in use, and every policy that one of them extends."""
        return [chain for chain in self._chains.values() if chain is not None]

    def chain(self, name: str, asked_at: Mark | None) -> Chain | None:
        """The policy of that name; None if it cannot be used (its problems are noted)."""
        path = self._find(name)
        if path is None:
            self._unknown(name, asked_at)
            return None
        return self.chain_at(path)

    def chain_at(self, path: Path) -> Chain | None:
        """The policy in that file."""
        if path not in self._chains:
            self._chains[path] = self._build(path)
        return self._chains[path]

    def _build(self, path: Path) -> Chain | None:
        sources: list[Source] = []
        next_path: Path | None = path
        while next_path is not None:
            source = self._read(next_path)
            if source is None:
                break
            sources.append(source)
            next_path = self._parent(source, sources)
        if not sources:
            return None
        settings: Block = PolicyBlock()
        for source in reversed(sources):
            settings = overlay(source.block, settings)
        assert isinstance(settings, PolicyBlock)  # noqa: S101 - for the type checker: overlay keeps the type
        return Chain(sources[0].name, tuple(sources), settings)

    def _parent(self, source: Source, chain: list[Source]) -> Path | None:
        """The file that a policy extends. Its own name means the shipped policy that it replaces."""
        name = source.block.extends
        if name is None:
            return None
        mark = source.block.value_mark("extends")
        path = self._find(name, besides=source.path if name == source.name else None)
        if path is None and name != source.name:
            self._unknown(name, mark)
        elif path is None or any(path == other.path for other in chain):
            walk = " -> ".join([*(other.name for other in chain), name])
            if mark is not None:
                text = f"this policy extends itself: {walk}"
                self.problems.append(mark.problem(Code.EXTENDS_CYCLE, text, "one of them must stand alone"))
            return None
        return path

    def _find(self, name: str, besides: Path | None = None) -> Path | None:
        for directory in self.directories:
            path = directory / f"{name}.yaml"
            if path != besides and os.path.exists(path):
                return path
        return None

    def _read(self, path: Path) -> Source | None:
        if path not in self._sources:
            document = self.files.parse(path)
            self.problems += document.problems
            block: PolicyBlock | None = None
            if document.root is not None or not document.problems:
                block, problems = read_block(PolicyBlock, document)
                self.problems += problems
            self._sources[path] = Source(path.stem, path, document, block) if block else None
        return self._sources[path]

    def _unknown(self, name: str, asked_at: Mark | None) -> None:
        names = sorted({path.stem for folder in self.directories for path in folder.glob("*.yaml")})
        text = f"there is no policy `{clip(name)}`"
        places = " and ".join(str(folder / f"{name}.yaml") for folder in self.directories[:1])
        remedy = f"{nearest(name, names)}; looked for {places}" if names else f"looked for {places}"
        if asked_at is None:
            self.problems.append(Problem(Code.UNKNOWN_POLICY, text, "default_policy", help=remedy))
        else:
            self.problems.append(asked_at.problem(Code.UNKNOWN_POLICY, text, remedy))


def overlay(nearer: Block, farther: Block) -> Block:
    """The farther block with every key that the nearer one writes; nested blocks are merged too, except those marked
    ``whole``.
    """
    update: dict[str, object] = {}
    for key in nearer.model_fields_set:
        value, below = getattr(nearer, key), getattr(farther, key)
        if isinstance(value, Block) and type(value) is type(below) and not value.whole:
            value = overlay(value, below)
        update[key] = value
    return farther.model_copy(update=update)


def _mark(block: Block, keys: tuple[str, ...]) -> Mark | None:
    """Where a block writes ``keys[0]`` (and in that ``keys[1]`` …), or None."""
    for key in keys[:-1]:
        if not block.sets(key):
            return None
        inner = getattr(block, key)
        if not isinstance(inner, Block):
            return block.value_mark(key)
        block = inner
    return block.value_mark(keys[-1]) if block.sets(keys[-1]) else None
