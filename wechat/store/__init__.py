"""What the server remembers for a while: in memory, in an SQLite file or in Redis."""
