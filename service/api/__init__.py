"""The HTTP API: parse, call one use case, write the answer. No decision is made here."""
