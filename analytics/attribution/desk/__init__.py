"""Answers launchers that ask why a job died: what may be asked, of which files, and what is answered. No HTTP."""
