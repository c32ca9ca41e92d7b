"""Light worlds for the queue alone: many seeds of shares, floods and planned starts, on machines that never fail.

The real `decide` on a virtual clock, agents that answer at once, and books that count what really ran.
"""
