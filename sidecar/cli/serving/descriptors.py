"""The descriptors that a long-running process begins with: the standard ones, and how many more there may be.

A process that was started with a standard stream closed would get its number for a socket, and libuv aborts when
such a socket is closed. It opens nothing else. The counterpart is ``proxy.places``, which shares out what there is.
"""

from __future__ import annotations

import contextlib
import os
import resource

__all__ = ["WANTED", "fill_standard", "raise_limit"]

WANTED = 65_536
"""Enough for 20,000 connections on either side."""


def fill_standard() -> None:
    """Point every closed one of stdin, stdout and stderr at the null device. To be called before anything is opened."""
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)


def raise_limit() -> None:
    """Lift the soft limit as far as is wanted and allowed; many shells set 1,024 for the sake of old programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
