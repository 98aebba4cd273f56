"""An app for tests: goals that are spread over sites, and functions that misbehave in each way."""
