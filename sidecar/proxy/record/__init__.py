"""An exchange that is over as values that hold no secret.

``record``  for the log, the metrics and the page · ``report`` heads and bodies of a failed one, redacted
"""
