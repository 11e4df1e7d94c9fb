"""The report of a study: what it says (content), its figures, and the page that shows both."""

from sweeps.report.html import write_report
from sweeps.report.summary import headline

__all__ = ["headline", "write_report"]
