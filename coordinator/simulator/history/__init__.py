"""A fleet's past and a workload, run through the real scheduler on a virtual clock: what would this policy have lost?

Nothing here reads a file, a clock or dice that were not given: the same history, workload and seed, the same report.
"""
