"""The file descriptors of a long-running process: the standard ones, and the limit of open files.

A process that was started with a standard stream closed would get its number for a socket, and libuv aborts when such a
socket is closed. It opens nothing else. Counterpart: ``proxy.server``, which divides the limit.
"""

from __future__ import annotations

import contextlib
import os
import resource

__all__ = ["WANTED", "fill_standard", "raise_limit"]

WANTED = 65_536
"""Descriptors: enough for 20,000 connections on either side."""


def fill_standard() -> None:
    """Point every closed one of stdin, stdout and stderr at the null device. Call it before anything is opened."""
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)


def raise_limit() -> None:
    """Raise the soft limit to ``WANTED``, or as far as is allowed; many shells set 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
