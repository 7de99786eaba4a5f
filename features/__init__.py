"""What is known about a customer: the lowest floor of the house. Imports nothing of service or training."""
