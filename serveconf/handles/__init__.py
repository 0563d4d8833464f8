"""Calls of one deployment by another, or by a script, without HTTP: the same frames as requests, Python objects on them.

``handle`` and ``response`` are what the user holds; ``calling`` sends a call to one of a deployment's replicas and
``answering`` runs it there; ``directory`` knows where the replicas are; ``local`` does without any of it, for tests.
"""
