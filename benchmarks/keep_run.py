"""Keep a run's facts as one result file: recipe, data hashes, manifest and evaluations; no rows.

python benchmarks/keep_run.py runs/mine 'newslora train ...' benchmarks/results/DATE-NAME.json
"""

import sys
from pathlib import Path

from newslora import files
from newslora.runfolder import RunFolder

HERE = ("/shared/", "/site-packages/", "/models/")  # a path is kept from one of these on


def main() -> None:
    folder, command, output = sys.argv[1:4]
    run = RunFolder.open(Path(folder))
    result = {
        "command": command,
        "recipe": run.recipe().model_dump(mode="json", exclude_none=True),
        "data": run.data(),
        "manifest": run.manifest(),
        # without the wrong rows, whose texts are the data's own
        "evaluation": {
            one["name"]: {key: value for key, value in one.items() if key != "errors"} for one in run.evaluations()
        },
    }
    files.write_json(Path(output), _shortened(result))


def _shortened(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, str) and " " not in value:
        for mark in HERE:
            if mark in value:
                return mark[1:] + value.rpartition(mark)[2]
    return value


if __name__ == "__main__":
    main()
