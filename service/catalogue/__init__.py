"""The catalogue on disk: YAML with positions -> `decision.model.Catalogue`. Knows no customer and no request."""
