"""``serveconf doctor``: ``machine`` looks at the machine, ``checks`` says what of it is in the way and what to do."""
