"""What runs on providers: a keeper that owns processes and a daemon that owns the network."""
