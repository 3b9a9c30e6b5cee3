"""The main job in twenty seconds: a small web shop whose workers are killed while they work."""
