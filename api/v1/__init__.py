"""Registry API v1 and the part of the Hub API v1 that a push and a pull need."""
