"""The documented facts of the five APIs, as scenarios. The emulated APIs themselves are in ``sidecar.demo.apis``."""
