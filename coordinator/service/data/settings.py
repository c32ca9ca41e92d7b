"""What the moving of blobs needs to know: its bounds and its patience."""

from __future__ import annotations

from msgspec import Struct

from coordinator.wire_data import URL_LIVES_S


class DataSettings(Struct, frozen=True, kw_only=True):
    """Bounds of transfers. Everything that a peer can make grow has one here."""

    url_s: float = URL_LIVES_S
    """A signed URL opens its object for so long; a transfer that has begun goes on."""
    transfers_max: int = 256
    """Uploads and downloads that are under way at a time ..."""
    transfers_per_tenant_max: int = 64
    """... and those of one tenant; further ones are refused."""
    receive_bytes: int = 1024 * 1024
    """Of an upload, before they are handed to the disk; at most three times so many are in memory of each."""
    send_bytes: int = 8 * 1024 * 1024
    """Of a download, that one turn of a thread may hand to the kernel."""
    send_threads: int = 8
    """Downloads that hand bytes to the kernel at the same time; a slow reader's waits without a thread."""
    stall_s: float = 30.0
    """A transfer that moves nothing for so long is cut ..."""
    rate_min_bytes_per_s: int = 1_000
    """... and so is one that goes on below this rate: what it was faster before gains it `stall_s` at most."""
    meter_s: float = 5.0
    """How often moved bytes are charged while any move."""
    sweep_s: float = 300.0
    """How often blobs that nobody holds are looked for; policy.blob_grace_ms says how long those are kept."""
    scan_s: float = 86_400.0
    """How often every file of a blob is looked at: one that no row names, which a crash may leave, is removed."""
