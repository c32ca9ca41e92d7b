"""Traces of jobs on disk: tables of columns, in files that only grow and files that never change."""
