"""The version of the whole: one number for the engine, the edge and the command."""

from __future__ import annotations

VERSION = "0.1.0"
