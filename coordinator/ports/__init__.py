"""What the service needs from the world, as Protocols, one file a port. `cli.compose` plugs the real ones in."""
