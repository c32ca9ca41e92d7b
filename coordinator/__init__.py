"""The coordinator: decides (core), carries out (service), runs on providers (agent)."""
