from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from nnz_service import __version__
from nnz_service.cli import app

#: What `nnz --help` must not wait for.
SLOW = {"numba", "numpy", "onnx", "scipy", "fastapi", "sqlalchemy", "httpx2"}

COMMANDS = sorted(get_command(app).commands)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a process of its own."""
    command = Path(sys.executable).with_name("nnz")
    return subprocess.run(
        [command, *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestHelp:
    def test_imports_nothing_slow(self) -> None:
        """
        The help is there before any library that computes is imported.
        """
        program = (
            "import sys\n"
            "from nnz_service.cli import main\n"
            "sys.argv = ['nnz', '--help']\n"
            "try:\n"
            "    main()\n"
            "except SystemExit as exc:\n"
            "    assert exc.code == 0\n"
            "print('MODULES', *{name.split('.')[0] for name in sys.modules})\n"
        )

        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )

        modules = done.stdout.splitlines()[-1].split()
        assert modules[0] == "MODULES"
        assert "typer" in modules
        assert SLOW.isdisjoint(modules)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_an_example(self, command: str) -> None:
        """
        The help of each command ends with a line that can be typed.
        """
        help_text = get_command(app).commands[command].help or ""

        group = hasattr(get_command(app).commands[command], "commands")
        assert group or f"`nnz {command}" in help_text

    def test_version(self) -> None:
        """
        ``--version`` prints the version of the package.
        """
        done = run("--version")

        assert (done.returncode, done.stdout) == (0, f"nnz {__version__}\n")


class TestExitCodes:
    @pytest.mark.parametrize(
        "words",
        [
            pytest.param(["frobnicate"], id="no such command"),
            pytest.param(["prune"], id="missing arguments"),
            pytest.param(["inspect", "no-such-file.onnx"], id="missing file"),
            pytest.param(["serve", "--port", "70000"], id="number out of range"),
        ],
    )
    def test_usage_is_two(self, words: list[str]) -> None:
        """
        Wrong usage: exit code 2, said on stderr, nothing on stdout.
        """
        done = run(*words)

        assert done.returncode == 2
        assert done.stdout == ""
        assert "Usage:" in done.stderr

    def test_failure_is_one(self, tmp_path: Path) -> None:
        """
        A file that is no model: exit code 1, one line, no traceback.
        """
        broken, out = tmp_path / "broken.onnx", tmp_path / "out.onnx"
        broken.write_bytes(b"\xff" * 64)

        done = run("prune", str(broken), str(out), "--sparsity", "0.5")

        assert done.returncode == 1
        assert done.stderr.startswith("error: not a valid ONNX model")
        assert "Traceback" not in done.stderr
        assert not out.exists()

    def test_setting_of_the_environment(self, tmp_path: Path) -> None:
        """
        A setting that makes no sense is named as the environment names it.
        """
        done = run("serve", "--home", str(tmp_path), NNZ_PORT="many")

        assert done.returncode == 2
        assert done.stderr.startswith("error: NNZ_PORT is 'many'")

    def test_open_to_everybody(self, tmp_path: Path) -> None:
        """
        An address that others can reach needs a key, or a clear word.
        """
        options = ("--home", str(tmp_path), "--port", "0")
        done = run("serve", "--host", "0.0.0.0", *options, NNZ_API_KEY="")  # noqa: S104 - to be refused

        assert done.returncode == 1
        assert "NNZ_API_KEY" in done.stderr
        assert "Traceback" not in done.stderr

    def test_port_of_grpc(self, tmp_path: Path) -> None:
        """
        A port for gRPC that somebody else has is a reason not to start.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            options = ("--home", str(tmp_path), "--port", "0", "--grpc-port", port)
            done = run("serve", *options)

        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in done.stderr

    def test_no_server(self) -> None:
        """
        A server that is not there fails `health`.
        """
        done = run("health", "--url", "http://127.0.0.1:9")

        assert (done.returncode, done.stdout) == (
            1,
            "http://127.0.0.1:9 is not ready\n",
        )

    def test_health_of_no_address(self) -> None:
        """
        What is no URL is refused in a line, with one that is.
        """
        done = run("health", "--url", "here")

        assert done.returncode == 1
        assert "'here' is not a URL; try http://127.0.0.1:8000" in done.stderr
        assert "Traceback" not in done.stderr
