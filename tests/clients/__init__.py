"""Real clients, each through each way in: a 503 and then a 200, of which they see the 200."""
