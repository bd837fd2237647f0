"""An engine alone on given rows, in a process of its own that computes when told to; and what benchmarks of a run share.

Used by serve_load.py and bulk_speed.py; as a program it is their child: python benchmarks/engine_alone.py RUN PRECISION TEXTS
"""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from newslora import files
from newslora.config import DataSettings
from newslora.data.articles import usable_text
from newslora.model.adapter import CARD, read_card
from newslora.predict.bulk import open_texts
from newslora.runfolder import RunFolder
from newslora.runtime import (
    Precision,
    environment_record,
    keep_freed_memory,
    package_version,
    pick_device,
    resolve_precision,
)

# of an export; the others compute in what is asked for
OWN_PRECISION = {"onnx": "fp32", "onnx-int8": "int8", "int8": "int8"}


class EngineAlone:
    """A child that holds a loaded run and its rows already tokenised; `logits_seconds` computes them all once.

    Args:
        run: run or export folder.
        precision: as `Classifier.load` takes it.
        texts: file of texts, a JSON list.
    """

    def __init__(self, run: Path, precision: str, texts: Path) -> None:
        command = [sys.executable, __file__, str(run), precision, str(texts)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self._told()  # rows, tokens a row, seconds to tokenise, engine

    def __enter__(self) -> "EngineAlone":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()

    def logits_seconds(self) -> float:
        """Seconds of `Classifier.logits` on all rows."""
        assert self._child.stdin is not None
        self._child.stdin.write("go\n")
        self._child.stdin.flush()
        return float(self._told()["seconds"])

    def _told(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise SystemExit(f"The engine alone ended with {self._child.wait()}; its words are above.")
        found: dict[str, Any] = json.loads(line)
        return found


def read_texts(source: str, count: int) -> tuple[list[str], dict[str, Any]]:
    """`count` usable texts of a source, title and description joined as in training, and what may be told of them.

    A source with fewer gives them again from its first.
    """
    table, columns = open_texts(source, DataSettings())
    usable = (text for text, problem in (usable_text(row, columns) for row in table.rows) if problem is None)
    texts = list(itertools.islice(usable, count))
    if not texts:
        raise SystemExit(f"'{source}' holds no row of text.")
    facts = {"data": Path(source).name, "sha256": table.sha256, "rows": count, "distinct_rows": len(texts)}
    return list(itertools.islice(itertools.cycle(texts), count)), facts


def run_facts(run: Path) -> dict[str, Any]:
    """What tells a run or an export from others, without where it lies."""
    card = read_card(run if (run / CARD).is_file() else RunFolder.open(run).adapter_folder())
    return {
        "backbone": Path(card.backbone).name if Path(card.backbone).is_absolute() else card.backbone,
        "backbone_sha256": card.backbone_sha256,
        "export": card.export,
        "adapter_sha256": card.weights_sha256,
        "labels": len(card.labels),
        "max_length": card.max_length,
    }


def environment(export: str | None, precision: str) -> dict[str, Any]:
    """`environment_record` of what this run or export computes in here, with what else takes part, and the cores."""
    own = OWN_PRECISION.get(export or "")
    device = pick_device("cpu" if own else None)
    computed = Precision(own, "the export's own") if own else resolve_precision(precision, device)
    record = environment_record(device, computed)
    record["packages"] |= {name: package_version(name) for name in ("onnxruntime", "uvicorn", "fastapi", "locust")}
    return record | {"cores": len(os.sched_getaffinity(0))}


def main() -> None:
    run, precision, texts = sys.argv[1:4]
    keep_freed_memory()  # as newslora's commands do
    from newslora.predict.classifier import Classifier

    classifier = Classifier.load(run, None, precision)
    given = files.read_json(Path(texts))
    began = time.perf_counter()
    rows = classifier.rows(given)
    tokenised = time.perf_counter() - began
    classifier.logits(rows)  # every shape once: new ones cost code generation
    facts = {
        "rows": len(given),
        "tokens_per_row": float(rows.tokens.lengths.sum()) / len(given),
        "tokenise_seconds": tokenised,
        "engine": classifier.engine.name,
    }
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        classifier.logits(rows)
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
