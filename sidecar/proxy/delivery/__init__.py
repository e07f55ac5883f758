"""Stored requests, delivered later by the same exchange as any other.

``worker``       in order, one at a time for each upstream, until each is delivered or dead
``null_client``  what a delivery has in place of an app's connection
"""
