"""infinity-emb's engine on a classifier folder: a JSON list of texts a line in, one of labels out. Child of peers.py.

It runs in an environment that has infinity-emb and need not have newslora: python peers_infinity.py FOLDER BATCH
"""

import asyncio
import json
import sys
from typing import Any


async def main() -> None:
    from infinity_emb import AsyncEngineArray, EngineArgs

    arguments = EngineArgs(
        model_name_or_path=sys.argv[1], engine="torch", device="cpu", batch_size=int(sys.argv[2]),
        bettertransformer=False, model_warmup=False,
    )  # fmt: skip
    engine: Any = AsyncEngineArray.from_args([arguments])[0]
    async with engine:
        for line in sys.stdin:
            answers, _ = await engine.classify(sentences=json.loads(line))
            labels = [max(answer, key=lambda one: one["score"])["label"] for answer in answers]
            print("LABELS" + json.dumps(labels), flush=True)


asyncio.run(main())
