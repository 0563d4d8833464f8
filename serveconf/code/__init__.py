"""Code packages: an immutable, content-addressed copy of app_dir, and what of it belongs to a deployment's version."""
