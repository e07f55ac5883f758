"""Every key of every file: its type, its default, its description. The JSON Schema and the docs are made from it.

``site``      ``sidecar.yaml`` · ``gateway`` access, tunnels, proxies · ``login`` · ``shared``
``policy``    a policy file · ``row`` one line of its table, conditions, wait sources, backoff
``tests``     a file of policy tests
``fields``    the kinds of value: header names, pointers, patterns · ``units`` durations, sizes, rates
``addresses`` hosts, origins, mounts, path patterns · ``statuses`` sets of statuses and failures
``secrets``   references to variables and files
``validate``  values with places -> blocks; what pydantic finds, said to a person
"""
