"""The protocol, pure: no I/O, and time, randomness and ids come in as arguments."""
