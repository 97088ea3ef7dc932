"""What WeChat's documents list, from `facts.json`: types of messages with samples, limits, and what errors say."""

import json
from pathlib import Path
from typing import Any

FACTS: dict[str, Any] = json.loads(Path(__file__).with_name("facts.json").read_text("utf-8"))
