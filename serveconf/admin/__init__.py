"""The control API: everything that the commands do is done through it."""
