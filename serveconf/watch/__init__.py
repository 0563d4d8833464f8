"""Watching what a stack is made of; all it ever says is "look again"."""
