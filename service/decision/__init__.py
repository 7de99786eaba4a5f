"""The pure core: which action, for whom, why. numpy and the standard library only; no IO, clock or framework."""
