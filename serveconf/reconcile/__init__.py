"""The reconciler: what should be is compared with what is, and the difference is worked off, new before old.

Plain asyncio over the ports in ``ports``; nothing here knows Ray. ``control`` is what the control API calls.
"""
