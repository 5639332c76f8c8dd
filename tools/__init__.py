"""The operators' command `cas`: the composition root that wires the engine to its edge.

Layer: tools, may import api and cas.
"""
