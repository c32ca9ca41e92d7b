"""Attacks the core: a seeded world on a virtual clock, and a witness that knows what really happened.

Imports the core alone. A world is its seed: the same seed tells the same story, byte for byte.
"""
