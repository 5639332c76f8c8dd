"""What tests of the engine may ask for."""

from tests.support.ending import unsynced

__all__ = ["unsynced"]
