"""When, whether and how an attempt is made again."""
