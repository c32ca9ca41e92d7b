"""The engine, as others call it: feed analyses, judge them."""

from analytics.attribution.analysis import Analysis
from analytics.attribution.case import End
from analytics.attribution.judging import canonical, judge
from analytics.attribution.rules import Rules

__all__ = ["Analysis", "End", "Rules", "canonical", "judge"]
