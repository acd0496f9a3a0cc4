"""How the tables came to be: one file in `versions` per change, each with its way back.

A file is called `v<revision>_<what>.py`; revisions are four digits, in order. A migration is never
edited once it was released, and it names its types itself: `tables.py` says what is true today,
a migration what was true then. What both add up to is compared by a test, on both databases.
"""
