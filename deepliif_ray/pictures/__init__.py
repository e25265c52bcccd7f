"""Pictures of scored slides: called cells over their tissue, and maps of the index."""
