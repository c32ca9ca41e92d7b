"""One suite of behaviours, run on every implementation of ports.store.Store."""
