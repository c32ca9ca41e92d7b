"""The HTTP side of the coordinator: one table of routes behind one door."""

from coordinator.service.api.app import build_app
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.settings import ApiSettings

__all__ = ["ApiDeps", "ApiSettings", "build_app"]
