"""Fixtures for the outbox's conversations: those of ``tests/behaviour``."""

from __future__ import annotations

from tests.behaviour.conftest import clock, make, processes, pytest_asyncio_loop_factories, upstream

__all__ = ["clock", "make", "processes", "pytest_asyncio_loop_factories", "upstream"]
