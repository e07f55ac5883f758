"""Running it: reload, shutdown, log, metrics, reports, resources."""
