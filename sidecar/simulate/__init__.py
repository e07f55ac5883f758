"""Storms on a virtual clock: the same engine that serves, thousands of clients, no socket, no waiting."""
