"""Style as a test: import rules, sizes, bans and docstrings, checked on the syntax tree.

``rules.py`` holds the numbers and tables, ``checks.py`` finds offences, ``exceptions.json`` lists
the ones still tolerated; ``harness/tests/test_tidy.py`` fails on any other, and on any exception
that is not needed any more, so that the list may only shrink.
"""
