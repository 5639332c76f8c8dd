"""OCI Distribution v1.1 and Docker Registry API v2: today's clients, on the same store and names as v1."""
