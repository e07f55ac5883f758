"""Spans of exchanges, attempts and waits, for OpenTelemetry (the extra ``otel``), by the standard ``OTEL_*`` variables.

``settings``  what the variables ask for · ``open`` opens the others, also where the extra is missing
``exporter``  the queue of records, and the thread that exports them · ``spans`` one record as spans

Nothing here is on the path of a request: the loop appends a record to a bounded queue when an exchange is over. Only
``exporter`` and ``spans`` import ``opentelemetry``, and they are imported only where spans are wanted. The ids that go
upstream in ``traceparent`` are made in ``observe.trace``.
"""
