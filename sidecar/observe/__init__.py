"""What happened, told as records, numbers and lines. Nothing here changes what happens.

``record``    one frozen record for each exchange · ``fields`` the same as plain data
``log``       which exchanges are logged, and how · ``pretty`` for a terminal · ``log_writer`` lines out, never blocking
``families``  every metric, named once · ``meters`` the counters of one upstream · ``metrics`` the Prometheus collector
``snapshot``  the same numbers for the page · ``trend`` the last minutes of them
``recent``    the last exchanges · ``reports`` the last failed ones
``situations``  what happened, to be judged again by another configuration
``redact``    what must never be kept or shown · ``sanitize`` foreign text made fit to be shown
``trace``     W3C Trace Context · ``stdlib_logging`` what libraries below us log
"""
