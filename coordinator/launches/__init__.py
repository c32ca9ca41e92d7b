"""The launch monitor: is it going to run? States and log lines together; whichever knows first says so."""
