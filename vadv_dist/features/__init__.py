"""Raw clips to features: `features.extract` is the entry point."""
