"""The command `rl`: it asks `ops` and prints the answers; one file per noun."""
