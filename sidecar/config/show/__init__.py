"""The configuration in force, for people and editors. Nothing here changes a value.

``effective``    what is in force, as YAML that loads again, each value with its origin (``sidecar show``)
``changes``      which settings of two configurations differ (``sidecar diff``, reloads)
``json_schema``  draft 2020-12, for editors (``sidecar schema``)
``reference``    the tables of ``docs/configuration.md``
"""
