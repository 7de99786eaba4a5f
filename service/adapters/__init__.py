"""One file a port and technology: each translates its driver's errors into those of `service.ports`."""
