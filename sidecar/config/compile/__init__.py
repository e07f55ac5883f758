"""Validated blocks -> the frozen values that the engine reads. Nothing is judged here: what arrives is sound.

``blocks``    a policy, its rows, a deployment
``policies``  policies by name: where they lie, what they extend, and the result of both
``gateway``   access, tunnels and outbound proxies, their secrets read
"""
