"""HTTP: bytes to typed requests and back."""
