"""Between the bytes of a push and a message: signature, envelope, XML and JSON."""
