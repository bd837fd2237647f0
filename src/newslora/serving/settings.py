"""The server's settings: the one owner of their defaults.

docs/serving.md derives from the descriptions below.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from newslora.config import Section, Words, validated, without_password
from newslora.errors import SettingsError, near


class ServeSettings(Section):
    """How `newslora serve` computes, listens, what it allows a client, and what it keeps. No part of a recipe: nothing of it
    changes an answer beyond rounding."""

    device: str | None = Field(
        None,
        description="Device to compute on: 'cpu', 'cuda', 'cuda:1', ...; unset: the first GPU, else the CPU.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="Precision to compute in; with fp32 a text's answer depends on the rest of its batch by rounding only.",
    )
    batch_tokens: int | None = Field(
        None, ge=8, description="Maximum tokens per forward pass; unset: as in prediction, by device (tokens)."
    )
    passes: int | None = Field(
        None,
        ge=1,
        description="Parallel forward passes per encoder; unset: on a CPU one per thread, at most 4; otherwise 1.",
    )
    queue_rows: int = Field(
        2048, ge=1, description="Maximum texts in the queue of an encoder; more are refused (texts)."
    )
    queue_tokens: int = Field(
        200_000, ge=8, description="Maximum tokens in the queue of an encoder; more are refused (tokens)."
    )
    deadline_seconds: float = Field(
        10,
        gt=0,
        description="Time limit of a request that gives no `timeout`; with explanations it is `longest_timeout` (seconds).",
    )
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on; one that other machines can reach needs `keys` or `open`.",
    )
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on (0: any free one).")
    open: bool = Field(
        False, description="Listen to other machines without keys: anyone who reaches the port may do anything."
    )
    keys: Path | None = Field(None, description="File of API keys (`newslora keys add`); unset: no key is needed.")
    adapters_root: Path | None = Field(
        None, description="Folder from which PUT /v1/adapters may load; unset: adapters cannot be changed over HTTP."
    )
    watch: Path | None = Field(
        None,
        description="Folder whose sub-folders are served, also as they are added, changed and removed; unset: none.",
    )
    feedback: str | None = Field(
        None, min_length=1, description="Address of the database that stores corrections; unset: none are accepted."
    )
    new_labels: bool = Field(False, description="Accept corrections whose label the adapter does not know.")
    allowed_hosts: Words | None = Field(
        None,
        description="Host names that a request may address, also '*.example.org' or '*'; unset: this machine's own names if "
        "only this machine can reach the server, otherwise any. `/health` and `/ready` accept any.",
    )
    cors_origins: Words = Field(
        (), description="Origins whose pages may call the API from a browser, such as https://desk.example.org."
    )
    max_texts: int = Field(256, ge=1, description="Maximum texts per request (texts).")
    max_characters: int = Field(
        100_000, ge=1, description="Maximum characters per text; a longer one is refused, not cut (characters)."
    )
    body_bytes: int = Field(
        4_000_000, ge=1024, description="Maximum size of a request body; in a stream, of a line (bytes)."
    )
    stream_rows: int = Field(64, ge=1, description="Lines of a stream that are answered together (lines).")
    explain_texts: int = Field(4, ge=0, description="Maximum texts per request with `explain` (0: none).")
    longest_timeout: float = Field(60, gt=0, description="The longest `timeout` a request may ask for (seconds).")
    rate_requests: int = Field(
        6_000, ge=0, description="Maximum requests per minute and key (0: no limit); without keys there is no limit."
    )
    rate_rows: int = Field(
        60_000, ge=0, description="Maximum texts per minute and key (0: no limit); without keys there is no limit."
    )
    connections: int = Field(
        1_000, ge=1, description="Maximum concurrent requests; more are told to try again (requests)."
    )
    header_seconds: float = Field(
        10, gt=0, description="Time limit for a client to send a request's headers (seconds)."
    )
    read_seconds: float = Field(
        10, gt=0, description="Time limit for a client to send the body; in a stream, its next part (seconds)."
    )
    write_seconds: float = Field(
        10, gt=0, description="Time limit for a client to receive a part of the answer (seconds)."
    )
    idle_seconds: int = Field(15, ge=1, description="Time an idle connection is kept open (seconds).")
    notice_seconds: float = Field(
        1, ge=0, description="Time from SIGTERM, when /ready turns 503, until connections are refused (seconds)."
    )
    grace_seconds: int = Field(30, ge=1, description="Time for accepted requests to finish after SIGTERM (seconds).")
    keep_uncertain: int = Field(
        200,
        ge=0,
        le=10_000,
        description="Least certain texts kept in memory per adapter, for the triage view (0: none).",
    )
    drift_baseline: int = Field(
        500,
        ge=100,
        le=100_000,
        description="First answers that are the baseline of an adapter without validation rows (answers).",
    )
    drift_window: int = Field(
        1_000, ge=100, le=100_000, description="Newest answers that are compared with the baseline (answers)."
    )
    trace: bool | None = Field(
        None,
        description="Send OpenTelemetry spans; unset: if the standard variable OTEL_EXPORTER_OTLP_ENDPOINT is set.",
    )

    @model_validator(mode="after")
    def _rows_fit(self) -> "ServeSettings":
        """What one request may hold can be answered at all, and within a minute's rate."""
        for name, allowed in (("queue_rows", self.queue_rows), ("rate_rows", self.rate_rows or math.inf)):
            if allowed < max(self.max_texts, self.stream_rows):
                raise ValueError(
                    f"{name} is {allowed}, less than one request may hold (max_texts {self.max_texts}, stream_rows "
                    f"{self.stream_rows}): raise it, or lower those"
                )
        return self

    _no_password = field_validator("feedback")(without_password)


def serve_settings(values: Mapping[str, Any]) -> ServeSettings:
    """Values by name -> ServeSettings; validation errors become sentences.

    Raises:
        SettingsError: an unknown name, a value outside its range, or two that do not fit together.
    """
    for key in values:
        if key not in ServeSettings.model_fields:
            raise SettingsError(f"The server has no setting '{key}'.{near(key, ServeSettings.model_fields)}")
    return validated(ServeSettings, values)
