"""Requests that are kept on disk and delivered later: accepted only once durable, never lost, in order."""
