"""Declarative HTTP serving of FastAPI apps and models on Ray. ``from serveconf import serve`` is the Python API."""

__version__ = "0.1.0"
