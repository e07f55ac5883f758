"""How an app's runtime is set to use the sidecar. Values and texts; nothing is opened or started.

``variables``  by which variables a runtime finds a proxy, and what must not go through one
``runtimes``   the block to copy for each runtime: proxy, base URLs, trust
"""
