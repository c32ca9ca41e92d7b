"""Numbered SQL files, `<database>_<number>.sql`; each is applied once, in one transaction, and never edited."""
