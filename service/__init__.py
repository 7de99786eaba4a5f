"""The decision service: a pure core (`decision`), its ports and adapters, and the entry points over them."""
