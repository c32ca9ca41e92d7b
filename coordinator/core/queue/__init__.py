"""The queue: who waits, whose turn it is, and which provider it gets."""
