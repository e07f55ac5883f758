"""Storms on a virtual clock: the same engine that serves, thousands of clients, no socket, no waiting.

``run``         puts a side under a storm and returns what happened; start reading here
``clock``       what is due next, and a time that jumps there; seeded chance
``contenders``  the sides: the engine itself, and stand-ins for what is common elsewhere
``storms``      named storms · ``upstream`` the upstreams of storms
``stats``       what happened, by slices of time · ``page`` ``charts`` ``picture`` the same, drawn

"Do no harm", the property:

``harmless``       the engine beside ``plain``, where each request retries by itself, on the same dice
``models``         what an upstream and its traffic are made of · ``random_models`` drawn from a seed
``composed``       the upstream of a model
"""
