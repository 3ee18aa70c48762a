# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has, asked of this very host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _host


@pytest.mark.parametrize(
    ("family", "listening", "wanted", "held"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", True),
        (socket.AF_INET, "127.0.0.1", "0.0.0.0", True),
        (socket.AF_INET, "0.0.0.0", "127.0.0.1", True),
        (socket.AF_INET, "127.0.0.1", "127.0.0.2", False),
        (socket.AF_INET6, "::", "127.0.0.1", True),
        (socket.AF_INET6, "::1", "127.0.0.1", False),
        (socket.AF_INET6, "::1", "::", True),
        (socket.AF_INET, "127.0.0.1", "::1", False),
    ],
)
def test_a_port_in_use(family: socket.AddressFamily, listening: str, wanted: str, held: bool) -> None:
    if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with socket.create_server((listening, 0), family=family, dualstack_ipv6=listening == "::") as server:
        port = server.getsockname()[1]
        found = _host.listener(wanted, port)
        if held:
            assert found is not None
            assert (found.address, found.pid) == (listening, os.getpid())
            assert found.container == ""
        else:
            assert found is None
    assert _host.listener(wanted, port) is None


def test_a_port_of_a_container_that_just_ended_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's helper is seen for a moment longer than the container."""
    (tmp_path / "docker-proxy").symlink_to(sys.executable)
    serve = (
        "import socket; server = socket.create_server(('127.0.0.1', 0));"
        "print(server.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen(
        [tmp_path / "docker-proxy", "-c", serve], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as helper:
        assert helper.stdout is not None
        port = int(helper.stdout.readline())
        found = _host.listener("127.0.0.1", port)
        assert found is not None
        assert (found.process, found.pid, found.container) == ("docker-proxy", helper.pid, "")

        sleep = time.sleep

        def end(seconds: float) -> None:
            # Whoever sleeps, and however often: it ends once.
            if helper.poll() is None:
                helper.communicate("\n")
            sleep(seconds)

        monkeypatch.setattr(time, "sleep", end)
        assert _host.listener("127.0.0.1", port) is None


def test_the_engine_answers() -> None:
    engine = _host.engine()
    assert engine.answers
    assert engine.installed
    assert engine.version[0].isdigit()
    assert engine.compose_version[0].isdigit()
    assert Path(engine.data_root).is_dir()


def test_an_engine_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    engine = _host.engine()
    assert not engine.answers
    assert engine.version == ""
    assert "nobody.sock" in engine.error


def test_no_client_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = _host.engine()
    assert not engine.answers
    assert engine.error == "docker is not installed"
    assert engine.compose_version == ""


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    found = _host.disk(str(tmp_path / "not" / "there" / "yet"))
    assert found.total_bytes == stat.f_blocks * stat.f_frsize
    assert 0 < found.free_bytes <= found.total_bytes
    assert found.writable


def test_operating_system(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text("# comment\nID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian 12'\n", encoding="utf-8")
    assert _host.operating_system(str(release)) == {
        "id": "debian",
        "version_id": "12",
        "pretty_name": "Debian 12",
    }
    assert _host.operating_system(str(tmp_path / "missing")) == {}


def test_the_libraries_are_here() -> None:
    assert _host.missing_libraries() == []


def test_what_is_at_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o750)
    (tmp_path / "file").touch(mode=0o600)
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    own = (os.getuid(), os.getgid())
    assert _host.entry(str(folder)) == (True, "directory", *own, "0750")
    assert _host.entry(str(tmp_path / "file")) == (True, "file", *own, "0600")
    assert _host.entry(str(tmp_path / "link")).type == "link"
    assert _host.entry(str(tmp_path / "pipe")).type == "other"
    for missing in ("nothing", "file/below"):
        assert _host.entry(str(tmp_path / missing)) == (False, None, None, None, None)
