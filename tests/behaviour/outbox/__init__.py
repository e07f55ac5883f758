"""Stored requests."""
