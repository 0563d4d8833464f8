"""From what an import path names to an ASGI app that a replica runs. Knows neither Ray nor the proxy nor the wire."""
