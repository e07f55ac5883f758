"""YAML text -> ``core.policy`` and ``core.deployment``; every error has a place. Never sends, never listens.

The walk: ``files`` (each read once) · ``document`` (text -> values with places) · ``environment`` (``SIDECAR_*``) ·
``models``, ``rowmodels``, ``sitemodels`` (the source of keys, defaults, descriptions) over ``fields``, ``places``
and ``quantities`` (how one value is written) · ``translate`` (what pydantic found, said to a person) · ``library``
(policies by name, ``extends``) · ``review`` and ``rowreview`` (values against each other) · ``compile`` (-> core) ·
``load`` (all of it, in order). ``effective``, ``schema`` and ``reference`` tell what there is.
"""
