"""WeChat's own test vectors; the sources are named in the file."""

import json
from pathlib import Path

VECTORS = json.loads(Path(__file__).with_name("official_vectors.json").read_text("utf-8"))
