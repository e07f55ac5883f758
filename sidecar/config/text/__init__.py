"""Files and YAML text, before any key has a meaning.

``files``     each file read once, bounded, and remembered for the watcher · ``contents`` bytes and their digest
``document``  YAML 1.2 scalars -> plain values that remember line and column; repeated keys refused
``layout``    the same text, indented alike (``sidecar fmt``)
``problems``  one mistake: code, place, frame with caret, help; all of a run are shown together
"""
