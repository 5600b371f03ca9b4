# A function such as people deploy: JSON in, some text work, a hash, JSON out.
import base64
import hashlib
import json
import re
from collections import Counter
from datetime import datetime, timezone
from decimal import Decimal


def handler(event, context):
    words = re.findall(r"\w+", event["text"].lower())
    when = datetime.fromtimestamp(event["at"], timezone.utc)
    return {
        "words": Counter(words).most_common(3),
        "hash": hashlib.sha256(event["text"].encode()).hexdigest(),
        "b64": base64.b64encode(event["text"].encode()).decode(),
        "when": when.isoformat(),
        "sum": str(sum(Decimal(n) for n in event["prices"])),
    }


event = {"text": "the quick brown fox jumps over the lazy dog, the end", "at": 1700000000, "prices": ["1.10", "2.20", "3.30"]}
print(json.dumps(handler(event, None), sort_keys=True))
