"""Who is asking, and what they may do: accounts, grants and one policy for every protocol."""
