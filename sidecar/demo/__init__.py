"""The demonstration: a flaky sample upstream, a load, a table. It stands above ``app`` and nothing stands on it.

``stage`` runs it · ``upstream`` fails on purpose · ``load`` an app that never retries · ``table`` what came of it
``apis``  five public APIs, emulated, each with its story
"""
