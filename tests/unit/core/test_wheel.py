"""The wheel: one appointment a key, never early, the same order after an image."""

from __future__ import annotations

from coordinator.core.wheel import GRAIN_MS, Wheel

T = 1_000_000


def a_wheel(*appointments: tuple[str, int]) -> Wheel[str]:
    wheel: Wheel[str] = Wheel()
    wheel.due(T)
    for key, when_ms in appointments:
        wheel.put(key, T + when_ms)
    return wheel


def test_everybody_comes_up_at_its_time_to_the_millisecond() -> None:
    wheel = a_wheel(("c", GRAIN_MS + 1), ("b", GRAIN_MS), ("a", 1))
    assert [] == wheel.due(T)
    assert ["a"] == wheel.due(T + 1)
    assert ["b"] == wheel.due(T + GRAIN_MS)
    assert ["c"] == wheel.due(T + GRAIN_MS + 1)


def test_a_moved_appointment_comes_up_once_at_its_new_time() -> None:
    for first, second in ((1_000, 5_000), (5_000, 1_000)):
        wheel = a_wheel(("a", first), ("a", second))
        found = [(ms, key) for ms in range(0, 9_000, GRAIN_MS) for key in wheel.due(T + ms)]
        assert [(second, "a")] == found


def test_hastening_never_delays() -> None:
    wheel = a_wheel(("a", 1_000))
    wheel.hasten("a", T + 3_000)
    assert ["a"] == wheel.due(T + 1_000)


def test_a_dropped_one_does_not_come_up() -> None:
    wheel = a_wheel(("a", 1_000))
    wheel.drop("a")
    assert "a" not in wheel
    assert [] == wheel.due(T + 9_000)


def test_an_appointment_in_the_past_comes_up_next() -> None:
    wheel = a_wheel(("a", -9_000))
    assert ["a"] == wheel.due(T)


def test_after_a_long_jump_everybody_comes_up_in_the_order_of_time() -> None:
    """Days without a tick cost the appointments, not the buckets gone by."""
    wheel = a_wheel(("late", 86_400_000), ("soon", 500), ("later", 90_000_000))
    assert ["soon", "late"] == wheel.due(T + 86_500_000)


def test_an_image_comes_up_in_the_order_of_the_original_however_it_was_made() -> None:
    wheel = a_wheel(("z", 500), ("a", 500), ("m", 700))
    wheel.drop("z")
    wheel.put("z", T + 500)
    copy: Wheel[str] = Wheel()
    copy.restore(*wheel.image())
    assert wheel.image() == copy.image()
    assert ["a", "z"] == wheel.due(T + 500) == copy.due(T + 500)
