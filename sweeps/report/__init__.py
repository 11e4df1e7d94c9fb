"""The report of a study: its content, its figures, and the page that shows them."""

from sweeps.report.html import write_report
from sweeps.report.summary import headline

__all__ = ["headline", "write_report"]
