"""Ask a real server process everything its description allows, and much that it forbids: `python benchmarks/fuzz_api.py RUN`.

Counts requests by operation and status; any 5xx but a declared 503 or 504, any undeclared status and any answer of another
form ends it with exit code 1 and the request as a curl command.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis

# what no schema tells: which labels there are, how many texts may wait, whether a folder holds an adapter
KNOWS_BETTER = ("POST /v1/classify", "POST /v1/classify/stream", "POST /v1/feedback", "PUT /v1/adapters/{name}")


@schemathesis.serializer("application/x-ndjson")  # type: ignore[untyped-decorator]
def lines(context: Any, value: Any) -> bytes:
    return (json.dumps(value) + "\n").encode()


def ask(operation: Any, mode: Any, cases: int, seed: int, address: str, counts: Counter[str]) -> str | None:
    """One operation in many ways; the first failure, if any."""
    excluded = [schemathesis.checks.not_a_server_error]  # a tiny `timeout` may well end in 504
    if operation.label in KNOWS_BETTER:
        excluded.append(schemathesis.checks.positive_data_acceptance)
    if operation.label.endswith("/stream"):
        excluded.append(schemathesis.checks.negative_data_rejection)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases, deadline=None, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        response = case.call_and_validate(base_url=address, excluded_checks=excluded)
        if response.status_code == 500:
            raise AssertionError(f"500: {case.as_curl_command()}")
        counts[f"{operation.label} {response.status_code}"] += 1

    try:
        one()
    except hypothesis.errors.Unsatisfiable:  # an operation that takes nothing cannot be asked wrongly
        return None
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - whatever it is, it is what this script looks for
        return f"{operation.label}, {mode.value}: {error}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--cases", type=int, default=1000, help="requests an operation, half of them meant to be wrong")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "newslora", "serve", arguments.run, "--port", "0", "--adapters-root", folder]
        command += ["--feedback", f"sqlite:///{folder}/corrections.db", "--set", "rate_requests=0"]
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            if found is None or not server.stdout.readline().startswith("Ready"):
                print((Path(folder) / "log").read_text(), file=sys.stderr)
                return 1
            counts: Counter[str] = Counter()
            began = time.time()
            failures = []
            operations: Any = schemathesis.openapi.from_url(f"{found[0]}/openapi.json").get_all_operations()
            for result in operations:
                for mode in schemathesis.GenerationMode:
                    failure = ask(result.ok(), mode, arguments.cases // 2, arguments.seed, found[0], counts)
                    failures += [] if failure is None else [failure]
            alive = server.poll() is None
        finally:
            server.terminate()
            code = server.wait(timeout=60)
    record = {
        "requests": counts.total(), "seconds": round(time.time() - began, 1), "seed": arguments.seed,
        "by_operation_and_status": dict(sorted(counts.items())), "failures": failures, "alive_at_end": alive, "exit": code,
    }  # fmt: skip
    print(json.dumps(record, indent=2))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if failures or not alive or code != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
