"""What the engine is measured beside, each a process of its own."""
