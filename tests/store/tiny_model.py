import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models


def write_model_folder(folder: Path, seed: int = 0) -> Path:
    """A BERT small enough to be written by each test, as sentence-transformers saves one."""
    (folder / "1_Pooling").mkdir(parents=True)
    config = {
        "model_type": "bert", "vocab_size": 4, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 32,
    }  # fmt: skip
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}
    Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    weights = np.random.default_rng(seed).standard_normal((4, 8)).astype(np.float32).tobytes()
    entry = {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, len(weights)]}
    header = json.dumps({"embeddings.word_embeddings.weight": entry}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + weights)
    return folder
