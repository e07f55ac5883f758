"""What replicas learn of an upstream, shared through Redis or Valkey: gate, rate, breaker and budget.

``open``           opens the others, also where ``redis`` is missing · ``parts`` what is shared of one upstream
``sync``           every upstream's part in one store · ``upstream_sync`` one of them
``store``          the connection: up or lost · ``journey`` one round trip · ``scripts`` atomic steps inside the store

Only this package imports ``redis`` (the extra of that name), and it is loaded only where the configuration says
``shared:``. Nothing here is on the path of a request: everything is decided from what is known in this process, the
store is told and asked beside it, and what it answers is taken over when it comes. A store that is slow, full or gone
leaves each replica with what it knows. What is shared is decided in ``core.flow.shared_limiter``.
"""
