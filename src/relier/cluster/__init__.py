"""A server, workers and a resurrector on one machine, supervised: what `rl cluster` runs."""
