"""Tokenizers that do not come as a tokenizer.json, as Hugging Face `tokenizers.Tokenizer` objects."""
