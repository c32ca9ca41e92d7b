"""Tenants through the API: limits, use and charges. Amounts are whole numbers as in `api_types.tenants`."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.api_types.tenants import Ledger, TenantChange, TenantEntry, TenantRequest, UsageBy, Usages
from coordinator.api_types.tenants import Tenants as TenantsAnswer
from coordinator.client.requests import Query, Requests, segment


class Tenants:
    """An admin sees and changes all of them; a tenant's own token sees its own, and changes nothing."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def list(self, *, limit: int = 100, page: str | None = None) -> TenantsAnswer:
        """One page of the tenants, in order of their names."""
        return self._requests.get("/v1/tenants", TenantsAnswer, {"limit": limit, "page": page})

    def show(self, name: str) -> TenantEntry:
        """One tenant and its limits."""
        return self._requests.get(_of(name), TenantEntry)

    def create(
        self,
        name: str,
        *,
        note: str = "",
        weight: int = 1,
        priority_max: int = 0,
        on_full: str = "queue",
        on_budget: str = "continue",
        runtime_ms: int = 3_600_000,
        quota: Mapping[str, int | None] | None = None,
    ) -> TenantEntry:
        """Make a tenant. `quota`: a limit by dimension."""
        request = TenantRequest(
            name=name,
            note=note,
            weight=weight,
            priority_max=priority_max,
            on_full=on_full,
            on_budget=on_budget,
            runtime_ms=runtime_ms,
            quota=dict(quota or {}),
        )
        return self._requests.post("/v1/tenants", request, TenantEntry)

    def change(
        self,
        name: str,
        *,
        note: str | None = None,
        weight: int | None = None,
        priority_max: int | None = None,
        on_full: str | None = None,
        on_budget: str | None = None,
        runtime_ms: int | None = None,
        quota: Mapping[str, int | None] | None = None,
    ) -> TenantEntry:
        """Change what is named; None leaves it as it is. In `quota` None lifts the limit."""
        request = TenantChange(
            note=note,
            weight=weight,
            priority_max=priority_max,
            on_full=on_full,
            on_budget=on_budget,
            runtime_ms=runtime_ms,
            quota=dict(quota or {}),
        )
        return self._requests.patch(_of(name), request, TenantEntry)

    def delete(self, name: str) -> None:
        """Only one without live jobs and valid tokens goes. Its ledger stays."""
        self._requests.delete(_of(name))

    def usage(self, tenant: str | None = None, *, limit: int = 1_000, page: str | None = None) -> Usages:
        """What is used, reserved and left, exactly, of one tenant or of every one that the token may see, a page."""
        return self._requests.get("/v1/usage", Usages, {"tenant": tenant, "limit": limit, "page": page})

    def usage_by(
        self,
        by: str,
        *,
        tenant: str | None = None,
        month: int | None = None,
        job_id: int | None = None,
        limit: int = 1_000,
    ) -> UsageBy:
        """Charges summed by `tenant`, `month`, `pool`, `job`, `provider` or `day`. `month` as 202611."""
        query: Query = {"by": by, "tenant": tenant, "month": month, "job": job_id, "limit": limit}
        return self._requests.get("/v1/usage/by", UsageBy, query)

    def ledger(
        self,
        *,
        tenant: str | None = None,
        month: int | None = None,
        job_id: int | None = None,
        limit: int = 100,
        page: str | None = None,
    ) -> Ledger:
        """One page of the charges, newest first."""
        query: Query = {"tenant": tenant, "month": month, "job": job_id, "limit": limit, "page": page}
        return self._requests.get("/v1/ledger", Ledger, query)


def _of(name: str) -> str:
    return f"/v1/tenants/{segment(name)}"
