"""CONNECT, upgrades, interception, outbound proxies."""
