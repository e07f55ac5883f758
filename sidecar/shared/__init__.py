"""What replicas learn of an upstream, shared through Redis or Valkey: gate, pace, breaker and budget.

Only this room imports ``redis`` (the extra of that name), and it is loaded only where the configuration says
``shared:``. Nothing here is on the path of a request: everything is decided from what is known in this process, the
store is told and asked beside it, and what it answers is taken over when it comes. A store that is slow, full or gone
leaves each replica with what it knows. What is shared is decided in ``core.flow.shared_limiter``.
"""
