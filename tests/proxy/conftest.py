"""The fixtures of the behaviour tests, for tests that look at a running sidecar from the inside."""

from tests.behaviour.conftest import clock, make, pytest_asyncio_loop_factories, upstream

__all__ = ["clock", "make", "pytest_asyncio_loop_factories", "upstream"]
