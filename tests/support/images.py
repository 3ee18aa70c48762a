# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of programs that no package of the distribution has, laid out as their official ones."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.registry import find_registry3
from tests.support.site import CHECKOUT, Site

#: Registry 2.8 from its package, which the role builds.
BASE = "dockyard/registry:2-packages"


def build_base(site: Site) -> None:
    """Let the role build it, once and not by every worker at the same time."""
    work = CHECKOUT / ".work"
    work.mkdir(exist_ok=True)
    with open(work / "image.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if site.docker("image", "inspect", BASE).returncode != 0:
            site.play(registry_image_source="packages").ok()
            site.remove()


def image_with(binary: str, name: str, folder: Path) -> str:
    """The name of an image with a shell, the usual small tools, and this program on the path; made in `folder`."""
    build_base(Site(folder / "base"))
    image = f"dockyard-test/{name}:binary"
    context = folder / f"{name}-image"
    context.mkdir()
    shutil.copy(binary, context / name)
    (context / name).chmod(0o755)
    (context / "Dockerfile").write_text(
        # Its files only: it declares a volume.
        f"FROM {BASE} AS base\n"
        'RUN ["/bin/busybox", "--install", "-s", "/usr/bin"]\n'
        "FROM scratch\n"
        "COPY --from=base / /\n"
        f"COPY {name} /usr/local/bin/{name}\n"
        'ENTRYPOINT ["/entrypoint.sh"]\n',
        encoding="utf-8",
    )
    subprocess.run(
        ["docker", "build", "--quiet", "--network=none", "--tag", image, str(context)],
        check=True,
        capture_output=True,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
    )
    return image


def registry3_variables(folder: Path) -> dict[str, Any]:
    """What makes a site run the registry 3.x that DOCKYARD_REGISTRY3 names."""
    return {
        "registry_version": "3",
        "registry_image": image_with(find_registry3() or "", "registry", folder),
        "registry_image_source": "auto",
    }
