"""What served code uses while it runs in a replica: its context, batches of calls, models that take turns.

It knows nothing of wires, proxies or Ray: the replica says who it is (``context.enter_replica``), and without a replica,
as in a test, all of it works just as well.
"""
