"""The work: jobs, their tasks and attempts, the leases these stand on, and what becomes of them."""
