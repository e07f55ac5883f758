"""The pure core: it is told what happened and what is allowed, and says what to do and why.

Nothing here sleeps, logs, counts, reads a clock, rolls dice, opens a socket or parses YAML; time and chance
are arguments. Imports flow one way, and only from the standard library beside themselves::

    decide, explain -> waits, safety -> hints, backoff, budget -> policy -> table -> conditions
                                                                 -> rows, exchange -> words

``words`` are the closed lists · ``exchange`` what happened · ``policy``, ``rows``, ``deployment`` what is
allowed · ``conditions`` and ``table`` which row decides · ``instants`` and ``hints`` what the upstream asked for
· ``backoff`` and ``waits`` how long · ``safety`` whether it can do harm · ``budget`` who pays · ``decide`` the
judgement · ``explain`` the judgement told · ``story``, ``story_words`` and ``story_text`` a whole exchange told.
"""
