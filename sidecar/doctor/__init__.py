"""What is wrong with a set-up, found from where the app runs: variables, reachability, trust, clocks, retries.

``examination``  runs the checks; each is one function that yields findings
``findings``     the closed list of what can be found · ``context`` what a check may look at
``variables`` ``trust`` ``layers``  look · ``reach`` asks the sidecar and each upstream

It changes nothing. The counterpart for a configuration file alone is ``sidecar.config``.
"""
