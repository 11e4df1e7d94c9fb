"""The report of a study: what it says (content), its figures, and the page that shows both."""

from sweeps.report.html import write_report

__all__ = ["write_report"]
