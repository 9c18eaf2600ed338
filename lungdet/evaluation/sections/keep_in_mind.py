"""What to keep in mind: every caveat, the heaviest first."""

from lungdet.evaluation.sections.contract import Section
from lungdet.page.document import items

SECTION = Section("What to keep in mind", tell=lambda summary: items(summary["caveats"], "caveat"), claim=(14, 40))
