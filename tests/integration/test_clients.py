# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""clients.yml on a machine with real tools: they trust, log in, push and pull; and all of it goes away again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml

from tests.support.client_machine import NAME, PLAIN, SECURE, ClientMachine

PASSWORD = "Correct-Horse-7f3a"
IMAGE = f"{SECURE}/team/app:1"
FOLDERS = (
    "/etc/docker",
    "/etc/containers",
    "/etc/containerd",
    "/root/.docker",
    "/root/.config",
    "/home/alice",
    "/var/lib/dockyard.registry",
)
DAEMON = {"log-level": "warn", "insecure-registries": ["192.0.2.1:5000"]}
LOGINS = {"auths": {"192.0.2.1:5000": {"auth": "c29tZWJvZHk6ZWxzZQ=="}}, "detachKeys": "ctrl-x"}
K3S = "/etc/rancher/k3s/registries.yaml"
K3S_OF_OTHERS = {"mirrors": {"192.0.2.1:5000": {"endpoint": ["http://192.0.2.1:5000"]}}}
#: The program by which k3s itself pulls images (rancher/wharfie); empty: nowhere.
WHARFIE = os.environ.get("DOCKYARD_WHARFIE", "")
BUILDKIT = "/etc/buildkit/buildkitd.toml"
#: Where buildkitd and buildctl are; empty: nowhere.
BUILDKIT_FOLDER = os.environ.get("DOCKYARD_BUILDKIT", "")
BUILDKIT_OF_OTHERS = "debug = true\n\n[worker.oci]\n  enabled = true\n"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientMachine]:
    """A machine whose engine runs, with settings of somebody else in every file that is shared."""
    with ClientMachine(tmp_path_factory.mktemp("client"), {"ci": PASSWORD}) as machine:
        machine.write("/etc/docker/daemon.json", json.dumps(DAEMON))
        machine.write("/etc/docker/certs.d/192.0.2.1:5000/ca.crt", "somebody else's")
        machine.write("/root/.docker/config.json", json.dumps(LOGINS))
        machine.start_docker()
        machine.run(
            "head -c 300000 /dev/urandom >/tmp/content; cd /tmp; tar -c content | docker import - app"
        )
        machine.run(f"docker tag app {IMAGE}")
        yield machine


def wanted(machine: ClientMachine, **more: Any) -> dict[str, Any]:
    return {
        "client_registry_address": SECURE,
        "client_ca_file": str(machine.ca),
        "client_logins": [
            {"name": "ci", "password": PASSWORD},
            {"name": "ci", "password": PASSWORD, "user": "alice"},
        ],
        **more,
    }


def test_from_nothing_and_back(machine: ClientMachine) -> None:
    """The whole life of a client, in order: each step stands on the one before."""
    before = machine.files(*FOLDERS)
    refused = machine.run(
        f"echo {PASSWORD} | docker login --username ci --password-stdin {SECURE}", fails=True
    )
    assert "x509" in refused

    checked = machine.play("--check", "--diff", **wanted(machine)).ok()
    assert checked.changed == ["files | Settings of the tools", "logins | Logins of the tools"]
    assert machine.files(*FOLDERS) == before

    real = machine.play("--diff", **wanted(machine)).ok()
    assert real.changed == checked.changed
    assert PASSWORD not in real.output + checked.output
    settled = machine.files(*FOLDERS)
    assert machine.play(**wanted(machine)).ok().changed == []
    _wrong_password_is_told(machine)
    assert machine.files(*FOLDERS) == settled

    _every_tool_works(machine)

    machine.play(**wanted(machine, client_state="absent")).ok()
    assert json.loads(machine.read("/root/.docker/config.json")) == LOGINS
    # As docker formats it; what it says is the same.
    after = machine.files(*FOLDERS)
    assert {each for each in after if ".docker/config.json" not in each} == {
        each for each in before if ".docker/config.json" not in each
    }
    assert machine.play(**wanted(machine, client_state="absent")).ok().changed == []


def _wrong_password_is_told(machine: ClientMachine) -> None:
    logins = [{"name": "ci", "password": "wrong-Horse-11"}]
    run = machine.play(**wanted(machine, client_logins=logins)).failed()
    assert "refuses this user and password (401)" in run.message
    assert "wrong-Horse-11" not in run.output


def _every_tool_works(machine: ClientMachine) -> None:
    machine.run(f"docker push {IMAGE} && docker image rm {IMAGE} && docker pull {IMAGE}")
    machine.run(f"skopeo copy docker://{IMAGE} docker://{SECURE}/team/copy:1")
    machine.run(f"podman --storage-driver vfs pull {SECURE}/team/copy:1")
    machine.run(f"buildah --storage-driver vfs pull {IMAGE}")
    # As in a session of hers; without one, skopeo would look into a folder of root's.
    session = "XDG_RUNTIME_DIR=/run/user/alice"
    assert '"digest"' in machine.run(f"{session} skopeo inspect --raw docker://{IMAGE}", user="alice")
    machine.start_containerd()
    pull = "ctr --address /run/own.sock images pull --snapshotter native"
    assert "x509" in machine.run(f"{pull} --user ci:{PASSWORD} {IMAGE}", fails=True)
    machine.run(f"{pull} --user ci:{PASSWORD} --hosts-dir /etc/containerd/certs.d {IMAGE}")
    for path in ("/home/alice/.docker/config.json", "/home/alice/.config/containers/auth.json"):
        assert machine.run(f"stat --format '%a %U %G' {path}").strip() == "600 alice alice"
    assert machine.run("stat --format '%a %U' /home/alice/.config").strip() == "700 alice"


def test_a_mirror_and_plain_http_take_effect_without_a_restart(machine: ClientMachine) -> None:
    variables: dict[str, Any] = {
        "client_registry_address": PLAIN,
        "client_insecure": True,
        "client_mirror": f"http://{PLAIN}",
    }
    pid = machine.read("/run/docker.pid")
    machine.play(**variables).ok()
    assert machine.play(**variables).ok().changed == []
    merged = json.loads(machine.read("/etc/docker/daemon.json"))
    assert merged == {
        "log-level": "warn",
        "insecure-registries": ["192.0.2.1:5000", PLAIN],
        "registry-mirrors": [f"http://{PLAIN}"],
    }
    # No such image is on Docker Hub, and nothing here reaches it.
    machine.run(
        f"docker tag app {PLAIN}/library/of-the-mirror:1 && docker push {PLAIN}/library/of-the-mirror:1"
    )
    machine.run("docker pull of-the-mirror:1")
    machine.run("podman --storage-driver vfs pull docker.io/library/of-the-mirror:1")
    assert machine.read("/run/docker.pid") == pid

    machine.play(**{**variables, "client_mirror": ""}).ok()
    assert "registry-mirrors" not in json.loads(machine.read("/etc/docker/daemon.json"))
    run = machine.play(**{**variables, "client_state": "absent"}).ok()
    assert "files | Docker Engine goes by its file" in run.changed
    assert json.loads(machine.read("/etc/docker/daemon.json")) == DAEMON
    assert "until the engine is restarted" in str(run.result("Say what is left to do"))
    assert machine.run("ls -A /etc/containers/registries.conf.d | grep dockyard", fails=True) == ""


def test_an_engine_that_a_broken_off_run_left_behind_is_told(machine: ClientMachine) -> None:
    variables: dict[str, Any] = {
        "client_registry_address": PLAIN,
        "client_insecure": True,
        "client_tools": ["docker"],
    }
    machine.play(**variables).ok()
    written = machine.read("/etc/docker/daemon.json")
    machine.write("/etc/docker/daemon.json", json.dumps(DAEMON))
    machine.run("kill -HUP $(cat /run/docker.pid); sleep 1")
    machine.write("/etc/docker/daemon.json", written)
    assert machine.play(**variables).ok().changed == ["files | Docker Engine goes by its file"]
    assert PLAIN in machine.run("docker info")
    machine.play(**{**variables, "client_state": "absent"}).ok()


def test_the_system_trusts_and_forgets(machine: ClientMachine) -> None:
    variables = wanted(machine, client_logins=[], client_tools=[], client_system_trust=True)
    connect = f"socket.create_connection(('{NAME}', 5443))"
    wrap = f"ssl.create_default_context().wrap_socket({connect}, server_hostname='{NAME}')"
    ask = f'python3 -c "import socket, ssl; {wrap}"'
    assert "CERTIFICATE_VERIFY_FAILED" in machine.run(ask, fails=True)
    machine.play(**variables).ok()
    machine.run(ask)
    machine.play(**{**variables, "client_state": "absent"}).ok()
    assert "CERTIFICATE_VERIFY_FAILED" in machine.run(ask, fails=True)


def test_files_for_k3s_and_buildkit_with_the_authority_of_the_registrys_host(
    machine: ClientMachine, tmp_path: Path
) -> None:
    """What they read, and that what others wrote stays. Neither is in a package."""
    machine.write(K3S, yaml.safe_dump(K3S_OF_OTHERS))
    machine.write(BUILDKIT, BUILDKIT_OF_OTHERS)
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "ca.crt").write_bytes(machine.ca.read_bytes())
    # The client's address of it is derived from these.
    registry = {"registry_root": str(tmp_path), "registry_hostname": NAME, "registry_port": 5443}
    variables: dict[str, Any] = {
        "client_ca_from": "registry-host",
        "client_tools": ["k3s", "buildkit"],
        "client_mirror": "https://mirror.test",
    }
    assert f"merge into {K3S}: this host's Python has no PyYAML" in (
        machine.play(registry=registry, **variables).failed().message
    )
    assert machine.read(BUILDKIT) == BUILDKIT_OF_OTHERS
    machine.run("apt-get install -y -qq --no-install-recommends python3-yaml")

    run = machine.play(registry=registry, **variables).ok()
    told = str(run.result("Say what is left to do"))
    assert "k3s: restart it" in told
    assert "buildkit: restart buildkitd" in told
    assert machine.play(registry=registry, **variables).ok().changed == []

    k3s_ca = f"/etc/rancher/k3s/dockyard-{NAME}_5443.crt"
    tls = {"tls": {"ca_file": k3s_ca}}
    assert yaml.safe_load(machine.read(K3S)) == {
        "mirrors": {
            **K3S_OF_OTHERS["mirrors"],
            SECURE: {"endpoint": [f"https://{SECURE}"]},
            "docker.io": {"endpoint": ["https://mirror.test"]},
        },
        "configs": {SECURE: tls, "mirror.test": tls},
    }
    buildkit_ca = f"/etc/buildkit/dockyard-{NAME}_5443.crt"
    trusted = {"http": False, "ca": [buildkit_ca]}
    assert tomllib.loads(machine.read(BUILDKIT)) == {
        **tomllib.loads(BUILDKIT_OF_OTHERS),
        "registry": {SECURE: trusted, "docker.io": {"mirrors": ["mirror.test"]}, "mirror.test": trusted},
    }
    for path in (k3s_ca, buildkit_ca):
        assert machine.read(path) == machine.ca.read_text()

    machine.play(registry=registry, **variables, client_state="absent").ok()
    assert yaml.safe_load(machine.read(K3S)) == K3S_OF_OTHERS
    assert machine.read(BUILDKIT) == BUILDKIT_OF_OTHERS
    assert machine.run("find /etc/rancher /etc/buildkit -type f").split() == [K3S, BUILDKIT]


@pytest.mark.skipif(
    not BUILDKIT_FOLDER,
    reason="DOCKYARD_BUILDKIT is unset: name a folder with buildkitd and buildctl to build with them",
)
def test_buildkit_pulls_and_pushes(machine: ClientMachine) -> None:
    """The real program, with what clients.yml writes for it, and with the login that it writes for docker."""
    for program in ("buildkitd", "buildctl"):
        machine.copy(Path(BUILDKIT_FOLDER, program), f"/usr/local/bin/{program}")
    built = f"{SECURE}/team/built:1"
    machine.write("/srv/build/Dockerfile", f"FROM {IMAGE}\nCOPY Dockerfile /\n")
    build = (
        "buildctl --addr unix:///run/buildkit.sock build --frontend dockerfile.v0 --progress plain"
        " --local context=/srv/build --local dockerfile=/srv/build"
        f" --output type=image,name={built},push=true"
    )
    machine.write(BUILDKIT, BUILDKIT_OF_OTHERS)
    machine.start_buildkit()
    assert "x509" in machine.run(build, fails=True)
    variables = wanted(machine, client_tools=["docker", "buildkit"])
    machine.play(**variables).ok()
    machine.start_buildkit()
    machine.run(f"docker push {IMAGE}")
    machine.run(build)
    assert '"digest"' in machine.run(f"skopeo inspect --raw docker://{built}")
    machine.play(**variables, client_state="absent").ok()
    assert machine.read(BUILDKIT) == BUILDKIT_OF_OTHERS


@pytest.mark.skipif(
    not WHARFIE, reason="DOCKYARD_WHARFIE is unset: name a wharfie, which reads registries.yaml as k3s does"
)
def test_k3s_pulls(machine: ClientMachine) -> None:
    """With its own reader of the file that clients.yml writes for it, and the login that it writes for docker."""
    machine.copy(Path(WHARFIE), "/usr/local/bin/wharfie")
    machine.write(K3S, yaml.safe_dump(K3S_OF_OTHERS))
    machine.run("apt-get install -y -qq --no-install-recommends python3-yaml")
    pull = f"rm -rf /srv/pulled && wharfie --private-registry {K3S} {IMAGE} /srv/pulled"
    assert "x509" in machine.run(pull, fails=True)
    variables = wanted(machine, client_tools=["docker", "k3s"])
    machine.play(**variables).ok()
    machine.run(f"docker push {IMAGE}")
    machine.run(pull)
    machine.run("cmp /tmp/content /srv/pulled/content")
    machine.play(**variables, client_state="absent").ok()
    assert yaml.safe_load(machine.read(K3S)) == K3S_OF_OTHERS


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"client_registry_address": ""}, "client_registry_address: name the registry as HOST or HOST:PORT"),
        ({"client_registry_address": "https://x"}, "without https:// and path"),
        ({"client_ca_from": "nobody", "client_ca_file": ""}, "nobody is no host of the inventory"),
        ({"client_ca_from": "nobody"}, "give one of them, not both"),
        ({"client_insecure": True}, "plain HTTP shows no certificate"),
        ({"client_tools": ["docker", "rocket"]}, "client_tools: rocket: not known"),
        ({"client_mirror": "mirror.test"}, "client_mirror: mirror.test must be https://"),
        (
            {"client_mirrror": "x"},
            "client_mirrror: the role has no such variable. Did you mean client_mirror?",
        ),
        ({"client_logins": [{"name": "ci"}]}, "client_logins: ci: a password is missing"),
    ],
)
def test_bad_input(machine: ClientMachine, variables: dict[str, Any], message: str) -> None:
    before = machine.files(*FOLDERS)
    assert message in machine.play(**wanted(machine, **variables)).failed().message
    assert machine.files(*FOLDERS) == before


@pytest.mark.parametrize(
    ("path", "text", "variables", "message"),
    [
        ("/etc/docker/certs.d/registry.test:5443/ca.crt", "another", {}, "was not written by this role"),
        ("/etc/docker/daemon.json", "{broken", {"client_mirror": "https://m.test"}, "it is not JSON"),
        (
            "/etc/docker/daemon.json",
            '{"registry-mirrors": "x"}',
            {"client_mirror": "https://m.test"},
            "registry-mirrors is set to something else",
        ),
    ],
)
def test_a_file_of_somebody_else_stays(
    machine: ClientMachine, path: str, text: str, variables: dict[str, Any], message: str
) -> None:
    kept = machine.run(f"cat {path} 2>/dev/null; true")
    machine.write(path, text)
    before = machine.files(*FOLDERS)
    assert message in machine.play(**wanted(machine, **variables)).failed().message
    assert machine.files(*FOLDERS) == before
    if kept:
        machine.write(path, kept)
    else:
        machine.run(f"rm -r $(dirname {path})")
