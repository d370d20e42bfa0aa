"""Property tests: they need hypothesis, and are skipped only where it is absent."""
