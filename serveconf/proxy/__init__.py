"""The HTTP edge of one proxy process: client connections in, ASGI calls to backends out.

``ProxyServer`` listens and speaks HTTP strictly, ``ProxyApp`` is the ASGI app behind it that serves one generation at a
time, a ``Backend`` (dispatch) carries a request to a replica. Nothing here imports Ray.
"""
