"""The fleet: who is there, who may come in, how long they stay."""
