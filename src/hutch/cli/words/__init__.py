"""The words of the nouns that have many of them; the rest are in `messages.py`."""
