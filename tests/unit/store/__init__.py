"""Parts of the store, each by itself."""
