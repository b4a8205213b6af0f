"""An embedding server that speaks Ollama's API."""
