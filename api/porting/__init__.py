"""Folders of other registries: read into a store, and written from one. Blocking; no HTTP."""
