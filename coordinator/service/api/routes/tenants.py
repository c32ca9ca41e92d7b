"""Routes of who submits and pays: limits, use and charges."""

from __future__ import annotations

from coordinator.api_types.tenants import Ledger, TenantChange, TenantEntry, TenantRequest, Tenants, UsageBy, Usages
from coordinator.service.api import ledger, tenants
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import ADMINS, ONLOOKERS, READERS, AnyRoute, delete, get, keeping, patch, post
from coordinator.service.api.streams import OpenStreams


def tenant_routes(streams: OpenStreams) -> tuple[AnyRoute, ...]:
    """Who submits and pays: limits, use and charges."""
    return (
        get("/v1/tenants", READERS, tenants.list_tenants, Tenants, "Tenants by name", tenants.TenantsQuery),
        post("/v1/tenants", ADMINS, tenants.create_tenant, TenantEntry, "Make a tenant", TenantRequest, status=201),
        get("/v1/tenants/{name}", ONLOOKERS, tenants.show_tenant, TenantEntry, "A tenant and its limits", NoQuery),
        patch("/v1/tenants/{name}", ADMINS, tenants.change_tenant, TenantEntry, "Change a tenant", TenantChange),
        delete("/v1/tenants/{name}", ADMINS, tenants.delete_tenant, "Delete a tenant that nothing stands on"),
        get(
            "/v1/usage",
            ONLOOKERS,
            tenants.read_usage,
            Usages,
            "What tenants use, reserve and have left, as it is decided by",
            tenants.UsageQuery,
        ),
        get("/v1/usage/by", ONLOOKERS, ledger.sum_ledger, UsageBy, "Charges summed", ledger.SumsQuery),
        get(
            "/v1/ledger",
            ONLOOKERS,
            keeping(ledger.list_ledger, streams=streams),
            Ledger,
            "Charges, newest first",
            ledger.LedgerQuery,
            csv=True,
        ),
    )
