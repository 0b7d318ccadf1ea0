"""X3D and CSN for kvideo. kvideo finds them by their entry points."""
