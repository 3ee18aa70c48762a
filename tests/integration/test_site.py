# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""site.yml: what it makes, that it tells the truth before, and that it changes nothing twice."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.support.images import BASE
from tests.support.site import CHECKOUT, Site


def modes(folder: Path) -> dict[str, str]:
    """Owner, group and mode of everything below a folder, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        mode = f"{status.st_uid}:{status.st_gid} {stat.S_IMODE(status.st_mode):04o}"
        found[str(path.relative_to(folder))] = mode
    return found


def test_check_then_real_then_twice(site: Site) -> None:
    before = site.play(check=True, diff=True).ok()
    assert not site.root.exists(), "check mode made something"
    assert not site.is_running()
    assert "present | Directories" not in before.changed
    assert "stack | Write compose.yml" in before.changed
    assert "no-new-privileges" in json.dumps(before.result("stack | Write compose.yml")["diff"])
    assert any("Check mode starts nothing" in name for name in before.changed)

    real = site.play().ok()
    assert "stack | Start it" in real.changed

    again = site.play().ok()
    assert again.changed == []
    again_in_check_mode = site.play(check=True, diff=True).ok()
    assert again_in_check_mode.changed == []


def test_who_may_read_what(deployed: Site) -> None:
    found = modes(deployed.root)
    data = {path: found.pop(path) for path in list(found) if path.startswith("data/")}
    assert set(data.values()) == {"65532:65532 0755"}, "folders of the layout only"
    assert found == {
        "auth": "0:65532 0750",
        "auth/.htpasswd.lock": "0:0 0600",
        "auth/htpasswd": "0:65532 0640",
        "compose.yml": "0:0 0640",
        "config": "0:65532 0750",
        "config/config.yml": "0:65532 0640",
        "data": "65532:65532 0750",
        "secrets": "0:0 0700",
        "secrets/.secrets.lock": "0:0 0600",
        "secrets/http.secret": "0:0 0600",
        "secrets/users": "0:0 0700",
        "secrets/users/.secrets.lock": "0:0 0600",
        "secrets/users/admin.password": "0:0 0600",
        "secrets/users/maintenance.password": "0:0 0600",
    }


def test_the_container_is_closed(deployed: Site) -> None:
    container = deployed.container()
    host = container["HostConfig"]
    assert container["Config"]["User"] == "65532:65532"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] == 1024**3
    assert host["PidsLimit"] == 512
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert host["PortBindings"] == {"5000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(deployed.port)}]}
    writable = [mount["Destination"] for mount in container["Mounts"] if mount["RW"]]
    assert writable == ["/var/lib/registry"]
    config = yaml.safe_load((deployed.root / "config" / "config.yml").read_text(encoding="utf-8"))
    drain = int(config["http"]["draintimeout"].rstrip("s"))
    assert container["Config"]["StopTimeout"] > drain


def test_it_becomes_healthy(deployed: Site) -> None:
    deadline = time.monotonic() + 60
    while deployed.container()["State"]["Health"]["Status"] == "starting" and time.monotonic() < deadline:
        time.sleep(0.5)
    assert deployed.container()["State"]["Health"]["Status"] == "healthy"


def test_the_summary_says_what_to_do_next(deployed: Site) -> None:
    lines = deployed.play().ok().result("present | Summary")["msg"].splitlines()
    summary = dict(line.split(maxsplit=1) for line in lines)
    assert summary["registry"] == deployed.url
    assert summary["user"] == "admin"
    assert summary["version"].startswith(deployed.variables.get("registry_version", "2.8"))
    file = summary["password"].split()[0]
    assert Path(file).read_text(encoding="utf-8").strip() == deployed.password()
    login = f"docker login --username admin --password-stdin {deployed.address}"
    assert summary["next"] == f"cat {file} | {login}", "the tests run as root"
    # And it is true.
    done = subprocess.run(
        ["sh", "-c", summary["next"]],
        env={**os.environ, "DOCKER_CONFIG": str(deployed.root.parent / "another-docker-config")},
        check=False,
    )
    assert done.returncode == 0


def test_the_check_leaves_nothing_behind(site: Site) -> None:
    """It pushed, pulled and deleted after the start."""
    steps = {
        step["step"]
        for step in site.play().ok().result("ask | The registry through its public address")["steps"]
    }
    assert {"push", "pull", "delete"} <= steps
    assert [path for path in (site.root / "data").rglob("*") if path.is_file()] == []
    assert list((site.root / "data" / "docker" / "registry" / "v2" / "repositories").iterdir()) == []


def test_login_push_and_pull(deployed: Site) -> None:
    image = f"{deployed.address}/team/app:1.0"
    assert not deployed.login(password="wrong")
    assert deployed.login()
    assert deployed.docker("tag", BASE, image).returncode == 0
    pushed = deployed.docker("push", image)
    assert pushed.returncode == 0, pushed.stderr
    wanted = deployed.docker("image", "inspect", "--format", "{{.Id}}", image).stdout
    assert deployed.docker("image", "rm", image).returncode == 0
    pulled = deployed.docker("pull", image)
    assert pulled.returncode == 0, pulled.stderr
    assert deployed.docker("image", "inspect", "--format", "{{.Id}}", image).stdout == wanted
    assert deployed.docker("image", "rm", image).returncode == 0
    deployed.docker("logout", deployed.address)
    assert deployed.docker("pull", image).returncode != 0


def test_only_a_changed_configuration_restarts_it(deployed: Site) -> None:
    first = deployed.container()
    assert deployed.play().ok().changed == []
    assert deployed.container()["State"]["StartedAt"] == first["State"]["StartedAt"]

    changed = deployed.play(
        registry_config={"http": {"headers": {"X-Frame-Options": ["DENY"]}}}, diff=True
    ).ok()
    difference = json.dumps(changed.result("stack | Write config.yml")["diff"])
    assert "X-Frame-Options" in difference
    assert (deployed.root / "secrets" / "http.secret").read_text(
        encoding="utf-8"
    ).strip() not in changed.output
    assert deployed.container()["Id"] != first["Id"]
    with pytest.raises(urllib.error.HTTPError) as unauthorized:
        urllib.request.urlopen(f"{deployed.url}/v2/", timeout=30)
    assert unauthorized.value.headers["X-Frame-Options"] == "DENY"

    assert "stack | Start it" in deployed.play().ok().changed
    assert deployed.play().ok().changed == []


def test_no_secret_is_printed(site: Site) -> None:
    secret = "a-Password-that-people-chose"
    run = site.play(
        diff=True,
        arguments=("-vvv",),
        registry_users=[{"name": "admin"}, {"name": "alice", "password": secret, "cost": 4}],
    ).ok()
    files = [site.root / "secrets" / "http.secret", *(site.root / "secrets" / "users").glob("*.password")]
    secrets = [secret, *(file.read_text(encoding="utf-8").strip() for file in files)]
    assert len(secrets) == 4
    assert [text for text in secrets if text in run.output.replace(json.dumps(secret), "")] == []


def test_absent_keeps_the_data_and_present_brings_it_back(site: Site) -> None:
    site.play().ok()
    password = site.password()
    image = f"{site.address}/kept:1"
    assert site.login()
    site.docker("tag", BASE, image)
    assert site.docker("push", image).returncode == 0

    foreseen = site.play(check=True, registry_state="absent").ok()
    assert site.is_running()
    assert foreseen.changed == ["absent | Take the stack away", "absent | Remove its file"]
    gone = site.play(registry_state="absent").ok()
    assert gone.changed == foreseen.changed
    assert not site.is_running()
    assert site.play(registry_state="absent").ok().changed == []

    site.play().ok()
    assert site.password() == password
    site.docker("image", "rm", image)
    assert site.docker("pull", image).returncode == 0
    site.docker("image", "rm", image)

    # As people type it: everything after -e key= is a string.
    site.play(arguments=("-e", "registry_state=absent registry_remove_data=true")).ok()
    assert not site.root.exists()
    assert site.play(registry_state="absent", registry_remove_data=True).ok().changed == []


def test_data_of_a_registry_that_ran_as_root_is_handed_over(site: Site) -> None:
    layout = site.root / "data" / "docker" / "registry" / "v2"
    blob = layout / "blobs" / "sha256" / "aa"
    blob.mkdir(parents=True)
    (layout / "repositories").mkdir()
    outside = site.root.parent / "outside"
    outside.write_text("not the registry's", encoding="utf-8")
    (blob / "link").symlink_to(outside)
    assert "directories | Hand existing data to the registry's user" in site.play().ok().changed
    assert blob.stat().st_uid == 65532
    assert outside.stat().st_uid == os.getuid(), "a symbolic link was followed out of the data"
    assert site.play().ok().changed == []


def test_variables_from_the_command_line_are_strings(site: Site) -> None:
    numbers = (
        f"registry_port={site.port} registry_uid=65532 registry_drain_seconds=5 registry_minimum_free_mib=2"
    )
    booleans = "registry_users_exclusive=false registry_delete_enabled=true registry_manage_docker=false"
    site.play(arguments=("-e", numbers, "-e", booleans)).ok()
    assert site.container()["Config"]["StopTimeout"] == 20
    assert site.play(arguments=("-e", numbers, "-e", booleans)).ok().changed == []


def test_extra_compose_keys_are_merged(site: Site) -> None:
    site.play(registry_compose={"services": {"registry": {"labels": {"org.example.team": "platform"}}}}).ok()
    labels = site.container()["Config"]["Labels"]
    assert labels["org.example.team"] == "platform"
    assert labels["dockyard.registry.config"]


@pytest.mark.parametrize("role", ["docker", "registry"])
def test_argument_specs_and_defaults_name_the_same(role: str) -> None:
    folder = CHECKOUT / "roles" / role
    defaults = yaml.safe_load((folder / "defaults" / "main.yml").read_text(encoding="utf-8"))
    specs = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))[
        "argument_specs"
    ]
    for entry, spec in specs.items():
        documented = {name: option.get("default") for name, option in spec["options"].items()}
        assert documented == defaults, f"entry point {entry}"
