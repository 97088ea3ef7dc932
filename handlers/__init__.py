"""What the account says: every module here is loaded at the start, but those whose names begin with `_`."""
