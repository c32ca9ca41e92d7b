"""Survival curves with delayed entry: the fleet's, and each provider's own with the fleet's weight behind it.

Kaplan and Meier (1958), product-limit estimator; delayed entry as in Andersen et al. (1993), IV.1: one is
at risk at age t when entry < t <= exit. Ages are whole seconds, so a stay of no length lasts one second.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analytics.reliability.columns import Codes, Flags, Floats, Ints

Z90 = 1.6448536269514722
"""Normal quantile 0.95: half of a 90 % interval."""
LOG_ZERO = -700.0
"""The logarithm that stands for survival 0, so that running sums stay finite."""
PRIOR = 2.0
"""Stays of the fleet that stand beside a provider's own at each leaving."""
_TABLE_MAX = 1 << 23
"""Ages in seconds up to which a lookup table beats binary search (97 days, 32 MB)."""


class Exposures(NamedTuple):
    """Times at risk: one row per uninterrupted, observed part of a stay."""

    provider: Codes
    enter: Codes
    """Age in seconds at which watching began."""
    exit: Codes
    """Age in seconds at which it ended; greater than `enter`."""
    event: Flags
    """It ended with a leaving; otherwise it is censored."""


class Curve(NamedTuple):
    """A step function: survival beyond each age, on the log scale, with its Greenwood variance."""

    age: Ints
    """Distinct ages of leavings in seconds, rising."""
    log_s: Floats
    variance: Floats
    """Greenwood's sum d / (r (r - d)): the variance of log S."""
    hazard: Floats
    """Share of those at risk who leave at that age."""
    longest: int
    """Nobody was watched beyond this age; 0 when nobody was watched at all."""
    events: int

    def at(self, age: npt.ArrayLike) -> Floats:
        """log S at each age; the last value goes on behind the last leaving."""
        return _step(self.age, self.log_s, np.asarray(age))

    def variance_at(self, age: npt.ArrayLike) -> Floats:
        """The variance of log S at each age."""
        return _step(self.age, self.variance, np.asarray(age))

    def hazard_of(self, age: Codes) -> Floats:
        """The hazard at ages that are leavings of this curve; 0 elsewhere."""
        if len(self.age) == 0:
            return np.zeros(len(age))
        if int(self.age[-1]) < _TABLE_MAX:
            table = np.zeros(int(self.age[-1]) + 2, np.float32)
            table[self.age] = self.hazard
            return table[np.minimum(age, len(table) - 1)].astype(np.float64)
        i = np.minimum(np.searchsorted(self.age, age), len(self.age) - 1)
        return np.where(self.age[i] == age, self.hazard[i].astype(np.float32), 0.0).astype(np.float64)


def _step(age: Ints, value: Floats, when: npt.NDArray[np.generic]) -> Floats:
    i = np.searchsorted(age, when, side="right")
    return np.concatenate(([0.0], value))[i]


def pooled(rows: Exposures) -> Curve:
    """The curve of everybody together. O(n log n) in 32-bit sorts."""
    ages, deaths = np.unique(rows.exit[rows.event], return_counts=True)
    longest = int(rows.exit.max()) if len(rows.exit) else 0
    late = np.sort(rows.enter[rows.enter > 0])
    entered = len(rows.enter) - len(late) + np.searchsorted(late, ages, side="left")
    risk = entered - np.searchsorted(np.sort(rows.exit), ages, side="left")
    log_s, variance = _product(deaths.astype(np.float64), risk.astype(np.float64))
    return Curve(ages.astype(np.int64), log_s, variance, deaths / np.maximum(risk, 1), longest, int(deaths.sum()))


def _terms(k: Floats, r: Floats) -> tuple[Floats, Floats]:
    """log(1 - k/r), and Greenwood's k / (r (r - k)); where nobody is left, LOG_ZERO and 0."""
    stays = r - k
    alive = stays > 1e-12 * r
    safe = np.where(alive, stays, 1.0)
    return np.where(alive, np.log(safe / r), LOG_ZERO), np.where(alive, k / (r * safe), 0.0)


def _product(k: Floats, r: Floats) -> tuple[Floats, Floats]:
    log_f, var = _terms(k, r)
    return np.maximum(np.cumsum(log_f), LOG_ZERO), np.cumsum(var)


class Own(NamedTuple):
    """Every provider's own curve: leavings sorted by (provider, age), with where each provider's begin."""

    provider: Codes
    age: Codes
    log_s: Floats
    variance: Floats
    key: Ints
    """(provider, age) in one number."""
    longest: Ints
    """By provider: the oldest age that it was watched at; 0: never."""
    exits: Ints
    """(provider, exit age) of every exposure, sorted."""
    entries: Ints
    """(provider, entry age) of those that entered late, sorted."""
    beyond: Floats
    """By provider: the fleet's log S at `longest`, from where its curve goes on."""

    def row(self, providers: int, age: int) -> Ints:
        """By provider: the row of its last leaving up to `age`; -1 where it has none."""
        wanted = np.arange(providers, dtype=np.int64) << 32 | age
        i = np.searchsorted(self.key, wanted, side="right") - 1
        found = (i >= 0) & (self.key[np.maximum(i, 0)] >> 32 == wanted >> 32) if len(self.key) else i >= 0
        return np.where(found, i, -1)

    def at_risk(self, providers: int, age: int) -> Ints:
        """By provider: how many of its stays were watched at and beyond `age`."""
        p = np.arange(providers, dtype=np.int64) << 32
        low, high = np.searchsorted(self.exits, p), np.searchsorted(self.exits, p | 0xFFFFFFFF)
        gone = np.searchsorted(self.exits, p | age) - low
        late = np.searchsorted(self.entries, p | 0xFFFFFFFF) - np.searchsorted(self.entries, p | age)
        return np.asarray(np.maximum(high - low - gone - late, 0), np.int64)


def own(rows: Exposures, fleet: Curve, providers: int) -> Own:
    """Each provider's curve, shrunk: with k of r at risk leaving the factor is 1 - (k + 2h) / (r + 2).

    h is the fleet's hazard at that age: thin data borrow the fleet. O(n log n), one 64-bit sort.
    """
    base = rows.provider.astype(np.int64)
    keys = np.sort(base << 33 | rows.exit.astype(np.int64) << 1 | rows.event)
    exits = keys >> 1
    late = rows.enter > 0
    entries = np.sort(base[late] << 32 | rows.enter[late])
    longest = np.zeros(providers, np.int64)
    if len(exits) == 0:
        empty = np.zeros(0)
        no = empty.astype(np.int32)
        return Own(no, no, empty, empty, exits, longest, exits, entries, np.zeros(providers))
    tail = np.flatnonzero(np.append(exits[1:] >> 32 != exits[:-1] >> 32, True))
    longest[exits[tail] >> 32] = exits[tail] & 0xFFFFFFFF

    head = np.flatnonzero(np.concatenate(([True], exits[1:] != exits[:-1])))
    leavings = np.add.reduceat(keys & 1, head)
    some = leavings > 0
    head, k = head[some], leavings[some].astype(np.float64)
    key = exits[head]
    provider, age = (key >> 32).astype(np.int32), (key & 0xFFFFFFFF).astype(np.int32)
    ends_at = np.zeros(providers, np.int64)
    ends_at[exits[tail] >> 32] = tail + 1
    risk = ends_at[provider] - head
    if len(entries):
        after = np.searchsorted(entries, np.arange(1, providers + 1, dtype=np.int64) << 32)
        risk -= after[provider] - np.searchsorted(entries, key, side="left")
    log_f, var = _terms(k + PRIOR * fleet.hazard_of(age), (risk + PRIOR).astype(np.float64))
    first = np.concatenate(([True], provider[1:] != provider[:-1])) if len(provider) else np.zeros(0, np.bool_)
    return Own(
        provider, age, _within(log_f, first), _within(var, first), key, longest, exits, entries, fleet.at(longest)
    )


def _within(term: Floats, first: Flags) -> Floats:
    """Running sums that begin anew wherever `first` says."""
    total = np.cumsum(term)
    head = np.flatnonzero(first)
    before = total[head] - term[head]
    return total - np.repeat(before, np.diff(np.append(head, len(term))))


class Chances(NamedTuple):
    """By provider: P(a stay outlasts one age), its 90 % interval, and whether the fleet's curve had to help."""

    p: Floats
    low: Floats
    high: Floats
    borrowed: Flags


def chances(mine: Own, fleet: Curve, providers: int, age: int, unwatched: float = LOG_ZERO) -> Chances:
    """P(a stay lasts longer than `age` seconds) of each provider.

    Past a provider's own longest observation the fleet's curve continues it; where the fleet was not watched so
    long either, log S falls by `unwatched` (stays: to 0, as where the fleet's curve is at 0 by then; absences: not
    at all).
    Intervals: log-log (Kalbfleisch and Prentice 2002, 1.4) on Greenwood's variance; the borrowed part adds the
    fleet's variance and, since this provider's hazard varies about the fleet's like a gamma of shape 2, half
    the square of its log. At 0 and 1, where that is not defined, Clopper and Pearson's bound for as many stays
    as were watched: (1/20)^(1/n).
    """
    i = mine.row(providers, age)
    has = i >= 0
    log_s = np.where(has, mine.log_s[i], 0.0) if len(mine.key) else np.zeros(providers)
    var = np.where(has, mine.variance[i], 0.0) if len(mine.key) else np.zeros(providers)
    borrowed = mine.longest < age
    more = fleet.at(age) - mine.beyond
    if unwatched <= LOG_ZERO:
        more = np.where(mine.beyond <= LOG_ZERO, LOG_ZERO, more)
    if fleet.longest < age:
        more = np.full(providers, LOG_ZERO) if unwatched <= LOG_ZERO else more + unwatched
    spread = np.maximum(fleet.variance_at(age) - fleet.variance_at(mine.longest), 0.0) + PRIOR * (more / PRIOR) ** 2
    log_s = np.where(borrowed, log_s + more, log_s)
    var = np.where(borrowed, var + spread, var)

    p = np.exp(np.maximum(log_s, LOG_ZERO))
    p = np.where(log_s <= LOG_ZERO, 0.0, p)
    n = mine.at_risk(providers, age)
    bound = np.where(n > 0, 0.05 ** (1.0 / np.maximum(n, 1)), 0.0)
    inner = (log_s < 0.0) & (log_s > LOG_ZERO)
    scale = np.where(inner, Z90 * np.sqrt(var) / np.where(inner, -log_s, 1.0), 0.0)
    scale = np.exp(np.minimum(scale, 50.0))
    low = np.where(inner, np.exp(np.maximum(log_s * scale, LOG_ZERO)), np.where(p > 0.5, bound, 0.0))
    high = np.where(inner, np.exp(log_s / scale), np.where(p > 0.5, 1.0, 1.0 - bound))
    return Chances(p, low, high, borrowed)


def quantile(mine: Own, fleet: Curve, providers: int, level: float) -> Floats:
    """By provider: seconds at which its survival falls to `level`; nan where it does not.

    Beyond its own longest observation on the fleet's curve, as far as that was watched.
    """
    target = np.log(level) + 1e-9
    found = np.full(providers, np.nan)
    below = mine.log_s <= target
    if len(below):
        fresh = np.concatenate(([True], mine.provider[1:] != mine.provider[:-1]))
        crossing = np.flatnonzero(below & (fresh | ~np.concatenate(([False], below[:-1]))))
        found[mine.provider[crossing]] = mine.age[crossing]
    if len(fleet.age):
        i = mine.row(providers, 0xFFFFFFFF)
        log_s = np.where(i >= 0, mine.log_s[i], 0.0) if len(mine.key) else np.zeros(providers)
        wanted = target - log_s + mine.beyond
        j = np.searchsorted(-fleet.log_s, -wanted, side="left")
        age = np.where(j < len(fleet.age), fleet.age[np.minimum(j, len(fleet.age) - 1)], 0)
        found = np.where(np.isnan(found) & (age > mine.longest), age, found)
    return found
