"""Where launches are looked at: one file a system, each with the protocol of `coordinator.launches.sightings`."""
