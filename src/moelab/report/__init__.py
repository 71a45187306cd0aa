"""Figures and the page: plain tables in, Altair charts and one self-contained HTML file out.

`moelab.report.figures` holds the charts and `save_figure`; the page is made of the pieces below.
"""

from moelab.report.page import Fact, Figure, Page, Section, Table, render_page, write_page

__all__ = ["Fact", "Figure", "Page", "Section", "Table", "render_page", "write_page"]
