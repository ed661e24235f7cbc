"""Figures and pages."""

from peephole.report.page import Figure, Page, Table, Text

__all__ = ["Figure", "Page", "Table", "Text"]
