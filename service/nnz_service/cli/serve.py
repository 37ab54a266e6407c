"""``nnz serve``: start the server and stay until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nnz_service.cli._app import WRONG_USAGE, app, complain

Models = Annotated[
    Path | None,
    typer.Option(
        help="Folder of .onnx files, or name/version/model.onnx, to serve.",
        exists=True,
        file_okay=False,
    ),
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[
    int | None, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)
]
GrpcPort = Annotated[
    int | None,
    typer.Option(
        help="Port of gRPC; none if absent, 0 takes a free one.", min=0, max=65535
    ),
]
Home = Annotated[
    Path | None,
    typer.Option(help="Where models, matrices, jobs and compiled kernels stay."),
]
Threads = Annotated[
    int | None, typer.Option(help="Compute threads; all cores if absent.", min=1)
]
Device = Annotated[
    str | None, typer.Option(help="auto (a GPU if one can be used), cpu or cuda.")
]
Precision = Annotated[
    str | None, typer.Option(help="Of models on a GPU: fp32, fp16 or bf16.")
]
Workers = Annotated[
    int | None,
    typer.Option(help="Worker processes; one a GPU if absent.", min=1, max=64),
]
Web = Annotated[
    int | None, typer.Option(help="Processes that take requests.", min=1, max=16)
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Allow other hosts in without a key.")
]
TlsCert = Annotated[
    Path | None, typer.Option(help="PEM file of the certificate chain: speak TLS.")
]
TlsKey = Annotated[
    Path | None, typer.Option(help="PEM file of the certificate's private key.")
]
TlsClientCa = Annotated[
    Path | None,
    typer.Option(help="PEM file: callers must show a certificate of these."),
]


@app.command(rich_help_panel="Server")
def serve(
    models: Models = None,
    host: Host = None,
    port: Port = None,
    grpc_port: GrpcPort = None,
    home: Home = None,
    threads: Threads = None,
    device: Device = None,
    precision: Precision = None,
    workers: Workers = None,
    web: Web = None,
    insecure: Insecure = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_client_ca: TlsClientCa = None,
) -> None:
    """Serve models and matrices over HTTP, and gRPC if asked, until SIGTERM or Ctrl-C.

    What is not given here comes from the environment (NNZ_HOME, NNZ_PORT, ...; the
    README's section "Settings" has all), then from the defaults: 127.0.0.1:8000,
    ./nnz-home. A host that others can reach needs a
    key: NNZ_API_KEY, or one of `nnz keys create`.

    Example: `nnz serve --models ./models --port 8000`
    """
    from pydantic import ValidationError

    from nnz_service import supervisor
    from nnz_service.settings import Settings

    given: dict[str, Any] = {
        "models": models,
        "host": host,
        "port": port,
        "grpc_port": grpc_port,
        "home": home,
        "threads": threads,
        "device": device,
        "precision": precision,
        "workers": workers,
        "web": web,
        "insecure": insecure or None,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        settings = Settings(**chosen)
    except ValidationError as exc:
        for error in exc.errors():
            name = "_".join(str(part) for part in error["loc"])
            complain(f"NNZ_{name.upper()} is {error['input']!r}: {error['msg']}")
        raise typer.Exit(WRONG_USAGE) from None
    raise typer.Exit(supervisor.serve(settings))
