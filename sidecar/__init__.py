"""The retry sidecar: an HTTP proxy that sends again only what may be sent again."""

__version__ = "0.1.0"
