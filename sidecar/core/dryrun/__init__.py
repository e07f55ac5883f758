"""The engine without a network: what ``explain`` and ``test`` run, and their output.

``replay``        an exchange played through, each response judged by ``decide`` on a clock of its own
``explain``       a decision as one JSON object, and as lines for a person
``story``         the same in full: each step of each judgement, each source of a wait, the time line of all attempts;
                  ``story_text`` for a terminal, ``story_words`` the words of both
``expectations``  what a policy test expects, held against what the engine does
``compare``       two configurations: what would be judged differently, what needs a restart; ``made_answers`` what it
                  tries, ``compare_text`` the words of ``sidecar diff`` and of a reload
"""
