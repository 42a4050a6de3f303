"""Commands for people: ``python -m mmmixmim``."""
