"""Models of keras-cv for kvideo. kvideo finds them by their entry points."""
