"""Where each part of `serving` runs and how many of it: Ray Serve deployments and their wiring."""
