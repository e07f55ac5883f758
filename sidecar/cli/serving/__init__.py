"""What only ``sidecar serve`` needs.

``run``           start, say where, run, end with the right exit code
``lean_imports``  aiohttp without its client · ``memory`` allocator and collector of a long-running process
``descriptors``   the file descriptors that it begins with
"""
