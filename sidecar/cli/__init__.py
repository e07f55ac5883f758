"""The commands: one file for each verb, opened only when its verb is called. ``main`` finds them.

A new command is a line in ``main`` and a file here with a ``command``. By what a person wants to do:

run it          ``serve``, and ``serving`` for what only it needs · ``demo`` · ``simulate`` · ``env``
configure it    ``init`` · ``check`` · ``show`` · ``schema`` · ``test`` · ``diff`` · ``explain`` · ``doctor`` · ``ca``
                ``fmt`` · ``completion``
watch it        ``top`` · ``health`` · ``report`` · ``outbox`` · ``form`` (compiled or source)
control it      ``open`` · ``retries``

What several verbs share: ``admin_port`` asks a running sidecar, ``probe`` does so with a socket alone (the health check
of a container), ``route`` finds where a URL leads, ``paint`` is colour on a terminal, ``sarif`` a report for scanners.
"""
