"""How far the figures of a trace can be trusted: what the material lacked, what was taken for it, what was left out."""

from __future__ import annotations

from cli import humane
from cli.traceviews.sheet import Sheet
from coordinator.api_types.trace import Profile, Skew
from coordinator.lengths import long


def sound(profile: Profile, sheet: Sheet) -> None:
    """At the end of a view; nothing where nothing is to be said."""
    notes = [*profile.notes, *(f"a cycle in the lineage: {one}" for one in profile.cycles), *clocks(profile.skew)]
    counts = profile.counts
    for number, text in (
        (counts.duplicates, "rows came twice, and count once"),
        (counts.orphans, "spans whose parent is missing"),
        (counts.rejected, "rows could not be read"),
    ):
        if number:
            notes.append(f"{number} {text}")
    for table, number in profile.left_out.items():
        notes.append(f"{number} rows of {table}, the least important, are not in this answer; --limit 0 has all")
    if not notes and not counts.bad:
        return
    sheet.title("To judge these figures")
    for note in notes:
        sheet.line(f"- {note}")
    for bad in counts.bad:
        sheet.line(f"    {bad.source}, line {bad.line}: {bad.why}")


def clocks(skew: Skew) -> list[str]:
    """What is known of the providers' clocks."""
    if not skew.violations and not skew.offsets:
        return []
    said = []
    if skew.violations:
        said.append(
            f"{humane.count(skew.violations, 'task')} seemed to begin before what they needed was there, by up to "
            f"{long(skew.worst_ns)}: clocks differ"
        )
    if skew.corrected:
        said.append(f"times were set right by the providers' clock offsets; they are within {long(skew.bound_ns)}")
    elif skew.bound_ns:
        said.append(f"times are as recorded; they are within {long(skew.bound_ns)}")
    if not skew.consistent:
        said.append("no offsets of clocks explain all of it: a clock was stepped, or the lineage is wrong")
    return said
