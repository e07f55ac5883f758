"""HTTP/1.1 as bytes: heads, framing, chunked coding. Used by both sides; knows no policy and no socket.

This is the only room that touches aiohttp's semi-private parsers; ``tests/wire`` says what broke if they change.
"""
