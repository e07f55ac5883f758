"""The demonstration: a flaky sample upstream, a load, a table. It stands above ``app`` and nothing stands on it."""
