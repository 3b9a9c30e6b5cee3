"""Phoenix: notice who is dead, and bring back what they held."""
