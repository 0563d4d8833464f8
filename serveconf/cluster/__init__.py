"""The Ray room, the only one that imports ray: actors for controller, replicas and proxies, and the ports on Ray.

``Controller``, ``Replica`` and ``Proxy`` are plain classes; ``actors`` puts Ray on them.
"""
