"""YAML text -> values of ``core``; every mistake has a place. It never sends and never listens.

``load``           all of it, in order: files, environment, validation, checks, values. Start reading here
``environment``    ``SIDECAR_*`` variables and flags, laid over the file
``text``           files and YAML as values that remember their place; problems with a code frame; only it imports yaml
``schema``         every key: type, default, description; a new policy key is one field and its test
``check``          values against each other: contradictions, rows that cannot match, names that collide
``compile``        blocks -> ``core.decision.policy`` and ``core.settings``
``show``           what is in force and where it comes from; the JSON Schema; the reference tables of the docs
``policy_tests``   files of policy tests -> cases for ``core.dryrun``
``child_process``  validation in a process of its own, so that the serving one loads neither yaml nor pydantic
``child_main``     that process · ``validated`` what crosses between the two

Imports: ``load -> check -> compile -> schema -> text``.
"""
