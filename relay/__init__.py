"""Everything of Sluice that is not Ray: pure modules that decide, thin adapters that act."""
