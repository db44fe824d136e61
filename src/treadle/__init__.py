"""Treadle: an open Agent Server for LangGraph graphs."""

__version__ = "0.1.0"
