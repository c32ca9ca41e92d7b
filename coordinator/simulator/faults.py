"""What befalls machines, sockets and the coordinator, and how often: the seed's dice decide."""

from __future__ import annotations

from random import Random

CHARACTERS: dict[str, dict[str, float]] = {
    "server": {"flicker": 1, "reset": 1, "half_open": 1, "restart": 1, "daemon_kill": 2, "daemon_stop": 1},
    "office": {"leave": 4, "suspend": 2, "reboot": 1, "reset": 1, "daemon_stop": 2},
    "spot": {"drain": 3, "power_off": 3, "restart": 1, "daemon_kill": 1},
    "laptop": {"reset": 4, "half_open": 3, "suspend": 4, "cut": 3, "cut_up": 2, "cut_down": 2, "flicker": 3},
    "newcomer": {"restart": 2, "restart_silently": 3, "half_open": 2, "leave": 1, "daemon_kill": 2},
    "twin": {"copy": 5, "half_open": 1, "suspend": 2},
}
"""Per character the weights of what happens to it."""

HEAD_FAULTS: dict[str, float] = {
    "kill": 3,
    "planned_stop": 2,
    "stall": 4,
    "lag": 2,
    "slow_disk": 2,
    "full_disk": 3,
    "wall_step": 2,
    "admin": 6,
    "tenants": 5,
    "figures": 2,
}


def pick(dice: Random, weights: dict[str, float]) -> str:
    return dice.choices(list(weights), list(weights.values()))[0]
