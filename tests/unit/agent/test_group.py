"""A group's files as the kernel writes them, and what is made of those that cannot be read."""

from __future__ import annotations

from pathlib import Path

from coordinator.agent.group import Group


def a_group(place: Path, used_us: int) -> Group:
    path = place / "group"
    path.mkdir()
    (path / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    (path / "cpu.stat").write_text(f"usage_usec {used_us}\nuser_usec 0\nsystem_usec {used_us}\n")
    return Group(path)


def test_who_ran_in_a_group_is_told_by_what_was_used(tmp_path: Path) -> None:
    group = a_group(tmp_path, 250)
    assert not group.ran_since(250)
    (tmp_path / "group" / "cpu.stat").write_text("usage_usec 251\n")
    assert group.ran_since(250)
    assert group.read_used_us() == 251
    group.close()


def test_a_group_that_cannot_be_read_may_have_been_used(tmp_path: Path) -> None:
    """Nothing is begun twice because a file of the kernel's told nothing."""
    group = a_group(tmp_path, 250)
    (tmp_path / "group" / "cpu.stat").write_text("")
    assert group.ran_since(250)
    assert group.read_used_us() == 250, "what was read last"
    group.close()
