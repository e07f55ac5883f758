"""The app's side of the proxy.

``connection``      one connection: requests one after the other, responses in order, cuts and clean ends
``request_reader``  bytes -> heads that are whole and valid, bodies framed; everything else refused
``body``            a request body, recorded while it is sent, so that it can be sent again
``spool``           the files for bodies that outgrow memory
"""
