"""Five APIs, emulated from their documentation: for the demonstration, and for the tests of the shipped policies.

``emulator``  what all have in common · ``tokens`` that live for a while
``devices`` ``meshqu`` ``resq`` ``status``  the APIs
``stage``     one of them, and the configuration that leads to it · ``scenes`` what is asked of each
``telling``   plays the story of one, and tells it as a table
"""
