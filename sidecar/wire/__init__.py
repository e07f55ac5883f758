"""HTTP/1.1 as bytes, for both sides. It knows no policy and opens no socket.

``heads``        the bytes of one head -> a parsed head, or a refusal with the status that the peer should see
``framing``      how long is the body: RFC 9112 section 6, strictly
``chunked``      chunked coding: RFC 9112 section 7.1, strictly
``write_batch``  small writes of one turn of the event loop, made together at its end

Only ``heads`` and ``framing`` touch aiohttp's semi-private parsers; ``tests/wire`` says what broke if they change.
"""
