"""The page of a run: report.html, and the plots in it."""
