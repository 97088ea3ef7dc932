"""One message, one run, one reply."""
