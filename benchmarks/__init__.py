"""Yardsticks: the speed of the core, and the engine beside a stock stack. Nothing of the product imports them."""
