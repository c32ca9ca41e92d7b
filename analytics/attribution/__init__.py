"""Why a run died, from its log: one deterministic engine for stored logs, files, and launchers that ask over HTTP."""
