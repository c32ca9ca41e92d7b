"""What became of attempts, as their logs tell it: verdicts, what follows from them, and whom they suspect."""
