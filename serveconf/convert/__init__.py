"""A Ray Serve config, as people have it, as a serveconf spec: files in, a spec's data and notes out. Runs nobody's code."""
