"""What is wrong with a set-up, found from the place of the app: variables, reachability, trust, clocks, retries.

It asks and looks, and changes nothing. Each check is one function that yields findings; ``examination`` runs them.
The counterpart for a configuration file alone is ``sidecar.config``.
"""
