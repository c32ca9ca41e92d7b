"""Decides. No I/O, clock, randomness, logging or await: the same state and event give the same decision."""
