"""The structs of HTTP: what the service answers, the client reads and analytics fills in; one file a subject.

Times are RFC 3339 in UTC with milliseconds (`2026-11-22T04:31:05.123Z`); lengths of time and shares have
their unit in the name or are 0..1. A value that is not known is null, never 0.
"""
