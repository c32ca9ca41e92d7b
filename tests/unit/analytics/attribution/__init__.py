"""The engine of attribution: table, choice, and what is done about it."""
