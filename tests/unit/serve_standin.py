"""A server process around the stand-in: `python serve_standin.py RUN SECONDS [key=value ...]`, an answer taking SECONDS."""

import sys
from pathlib import Path

from standin import StandIn

from newslora.config import parse_assignment, serve_settings
from newslora.errors import InterruptedRun
from newslora.serving.server import end_process, serve


def main() -> None:
    run, seconds, *values = sys.argv[1:]
    settings = serve_settings({"port": 0, **dict(parse_assignment(value) for value in values)})
    service = StandIn(settings)
    service.seconds = float(seconds)
    try:
        serve({"news": Path(run)}, settings, service, lambda line: print(line, flush=True))  # type: ignore[arg-type]
    except InterruptedRun as ended:
        end_process(ended.exit_code)


if __name__ == "__main__":
    main()
