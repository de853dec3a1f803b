"""A report: one HTML file about a model, its conversion and the check, to be sent to a colleague.

It loads nothing, runs nothing but its own scripts, and shows text of a model as text. What it is made of
comes from packages: charts and their script from Bokeh, highlighting from Pygments, escaping from Jinja.
"""

from onnx2nn.report.subject import Subject
from onnx2nn.report.write import MARK, render, write

__all__ = ["MARK", "Subject", "render", "write"]
