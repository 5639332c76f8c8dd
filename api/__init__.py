"""The edge: HTTP in front of the engine. Parse, call the engine by its facade `cas`, render."""
