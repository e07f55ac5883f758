"""Fixtures for the outbox's conversations: those of ``tests/behaviour``."""

from __future__ import annotations

from tests.behaviour.conftest import processes, pytest_asyncio_loop_factories, upstream

__all__ = ["processes", "pytest_asyncio_loop_factories", "upstream"]
