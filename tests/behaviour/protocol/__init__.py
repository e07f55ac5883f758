"""HTTP/1.1 on both sides: heads, bodies, connections, limits, hostile peers."""
