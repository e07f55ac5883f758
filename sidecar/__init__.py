"""The retry sidecar: an HTTP proxy that sends again only what may be sent again."""

from sidecar import compiled

__version__ = "0.1.0"

compiled.prefer()
