"""Every setting of the server, each from the environment as NNZ_<NAME>."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1 << 20
GIB = 1 << 30


def _in_small_letters(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """What an operator may choose; `NNZ_<NAME>` in the environment sets each field."""

    model_config = SettingsConfigDict(
        env_prefix="NNZ_", extra="ignore", frozen=True, validate_default=True
    )

    #: Folder of everything that must survive a restart.
    home: Path = Path("nnz-home")
    #: Folder of `.onnx` files or `name/version/model.onnx`, served besides the stored.
    models: Path | None = None
    #: Where models, matrices and jobs are recorded: postgresql://user:password@host/db;
    #: None: SQLite in the home. Arrays and files stay in the home.
    database_url: SecretStr | None = None
    host: str = "127.0.0.1"
    #: 0 takes a free port.
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    #: Port of gRPC, on the same host; None serves none, 0 takes a free one.
    grpc_port: Annotated[int | None, Field(ge=0, le=65535)] = None
    #: Callers must send it as `Authorization: Bearer <key>`; None lets everybody in.
    api_key: SecretStr | None = None
    #: Bind other addresses than loopback even though there is no key.
    insecure: bool = False
    #: PEM files of the certificate chain and its key; with them the door speaks TLS.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    #: PEM file of authorities: callers must show a certificate of one of them.
    tls_client_ca: Path | None = None
    #: Origins of web pages that may call, separated by commas; `*` is all of them.
    cors_origins: str = ""
    #: Bytes of `audit.jsonl` at which it is set aside; one such file is kept.
    audit_bytes: Annotated[int, Field(ge=4096)] = 64 * MIB
    #: Threads of the kernels; None takes every core.
    threads: Annotated[int | None, Field(ge=1)] = None
    #: Where to compute: a GPU if one can be used (`auto`), or `cpu`, or `cuda`.
    device: Literal["auto", "cpu", "cuda"] = "auto"
    #: Of models on a GPU: weights and activations of 16 bits take half the memory.
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    #: Worker processes; None: one for each GPU, or one where there is none.
    workers: Annotated[int | None, Field(ge=1, le=64)] = None
    #: Processes that take requests; one is enough for one or two cores.
    web: Annotated[int, Field(ge=1, le=16)] = 1
    #: Seconds without a sign of life, or in one kernel, after which a process is
    #: replaced.
    hang_timeout: Annotated[float, Field(ge=1)] = 120.0
    #: Seconds between being told to stop and taking no more requests: what a balancer
    #: needs to see that the server is not ready any more.
    drain_delay: Annotated[float, Field(ge=0, le=300)] = 0.0
    #: Bytes of one request body, after decompression.
    max_body: Annotated[int, Field(ge=1)] = 64 * MIB
    #: Bytes of the JSON part of one request body.
    max_json: Annotated[int, Field(ge=1)] = 4 * MIB
    #: Bytes of one uploaded model or matrix.
    max_upload: Annotated[int, Field(ge=1)] = 4 * GIB
    #: Bytes that matrices may hold in a worker's memory; None: half of the machine's.
    #: Beyond, those go that were not used for the longest time, unless pinned.
    matrix_bytes: Annotated[int, Field(ge=0)] | None = None
    #: Bytes of address space of a process that solves or presolves a linear program
    #: with HiGHS; None: a quarter of the machine's memory, for two may run.
    lp_bytes: Annotated[int, Field(ge=GIB)] | None = None
    #: Seconds that a request may take when its caller names no deadline.
    request_timeout: Annotated[float, Field(gt=0)] = 60.0
    #: Seconds without a byte after which a body that is to come is given up.
    body_timeout: Annotated[float, Field(gt=0)] = 20.0
    #: Requests admitted at once, over all callers.
    max_inflight: Annotated[int, Field(ge=1)] = 256
    #: Bytes of admitted request bodies at once.
    max_inflight_bytes: Annotated[int, Field(ge=1)] = 2 * GIB
    #: Jobs of one key that may wait to run.
    job_queue: Annotated[int, Field(ge=1)] = 10_000
    #: Seconds for which a job that has ended is kept, with its result.
    job_ttl: Annotated[float, Field(gt=0)] = 7 * 86400.0
    #: Bytes of all results together; beyond, the jobs that ended first are deleted.
    job_bytes: Annotated[int, Field(ge=0)] = 10 * GIB
    #: Ended jobs at most.
    job_keep: Annotated[int, Field(ge=0)] = 100_000
    #: The least level of lines that are written, in small or capital letters.
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        BeforeValidator(_in_small_letters),
    ] = "info"
    #: One line of the log for every request.
    access_log: bool = False
    #: Let clients lend shared memory; None: where only this machine can connect.
    shared_memory: bool | None = None
    #: Where spans go (OTLP over HTTP), such as http://collector:4318; needs the extra
    #: `otel`.
    otel_endpoint: str | None = None
    #: What to compile for: this CPU (`native`), or the best x86-64 level that it has.
    cpu_target: Literal["native", "portable", "x86-64-v3", "x86-64-v4"] = "native"

    @property
    def key(self) -> str | None:
        """The API key in clear text; an empty one counts as none."""
        return self.api_key.get_secret_value() or None if self.api_key else None

    @property
    def database(self) -> str | None:
        """The URL of the database in clear text; an empty one counts as none."""
        url = self.database_url
        return url.get_secret_value() or None if url else None

    @property
    def origins(self) -> tuple[str, ...]:
        """Origins of web pages that may call."""
        parts = (part.strip() for part in self.cors_origins.split(","))
        return tuple(part for part in parts if part)

    def to_environment(self) -> dict[str, str]:
        """`NNZ_*` variables from which a child process reads the same settings."""
        fields = self.model_dump(exclude_none=True) | {
            "api_key": self.key,
            "database_url": self.database,
        }
        return {
            f"NNZ_{name.upper()}": str(value)
            for name, value in fields.items()
            if value is not None
        }
