# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users cost: against the bcrypt that they need, and against one community.general.htpasswd per user.

    python tests/bench/bench_users.py [--users 200] [--file-users 5000]

Ratios of one run count, not the seconds: a machine is slower or faster from one minute to the next.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import bcrypt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.modules import ansible_environment, run_module

# What passlib takes when nobody says otherwise: community.general.htpasswd cannot ask for another.
COMMUNITY_COST = 12
OUR_COST = 10

Users = list[dict[str, object]]


def seconds(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


@contextmanager
def users_file(content: str = "") -> Iterator[str]:
    """The path of an htpasswd file in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "htpasswd")
        path.write_text(content, encoding="utf-8")
        yield str(path)


def make_users(count: int, cost: int) -> Users:
    return [
        {"name": f"user{number}", "password": f"password {number}", "cost": cost} for number in range(count)
    ]


def bcrypt_alone(count: int, cost: int) -> float:
    """Seconds for so many hashes on all cores, and nothing else."""

    def make(number: int) -> bytes:
        return bcrypt.hashpw(b"password %d" % number, bcrypt.gensalt(cost))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return seconds(lambda: list(pool.map(make, range(count))))


def module(path: str, users: Users) -> float:
    """Seconds of the module's process."""

    def run() -> None:
        result = run_module("htpasswd_user", {"path": path, "users": users})
        assert not result.get("failed"), result

    return seconds(run)


def play(task: dict[str, object]) -> float:
    """Seconds of ansible-playbook with one task on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        playbook = Path(folder, "play.yml")
        tasks = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}]
        playbook.write_text(json.dumps(tasks), encoding="utf-8")
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(playbook)]
        return seconds(
            lambda: subprocess.run(command, check=True, capture_output=True, env=ansible_environment())
        )


def one_task(path: str, users: Users) -> float:
    return play({"dockyard.registry.htpasswd_user": {"path": path, "users": users}, "no_log": True})


def one_item_each(path: str, users: Users) -> float:
    arguments = {
        "path": path,
        "name": "{{ item.name }}",
        "password": "{{ item.password }}",
        "hash_scheme": "bcrypt",
        "mode": "0640",
    }
    return play({"community.general.htpasswd": arguments, "loop": users, "no_log": True})


def with_new_file(measure: Callable[[str, Users], float], users: Users) -> float:
    with users_file() as path:
        return measure(path, users)


def row(what: str, took: float, against: str, other: float) -> None:
    print(f"| {what} | {took:.2f} s | {against} | {other:.2f} s | {took / other:.2f} |")


def best(*works: Callable[[], float], rounds: int = 3) -> list[float]:
    """The least that each took, measured by turns, so that all see the same machine."""
    taken = [[work() for work in works] for _round in range(rounds)]
    return [min(column) for column in zip(*taken)]


def bench_one(file_users: int) -> None:
    user: Users = [{"name": "alice", "password": "wonderland", "cost": OUR_COST}]
    password_hash = bcrypt.hashpw(b"wonderland", bcrypt.gensalt(4)).decode()
    content = "".join(f"user{number}:{password_hash}\n" for number in range(file_users))

    def add_to(before: str) -> float:
        with users_file(before) as path:
            return module(path, user)

    full, empty, one_bcrypt = best(
        lambda: add_to(content), lambda: add_to(""), lambda: bcrypt_alone(1, OUR_COST), rounds=5
    )
    row(f"one user more in a file of {file_users}", full, "one user in an empty file", empty)
    extra = max(full - empty, 0.0)
    row(f"what the {file_users} add to that", extra, f"one bcrypt of cost {OUR_COST}", one_bcrypt)


def bench_against_bcrypt(count: int) -> None:
    users = make_users(count, OUR_COST)
    with users_file() as path:
        module(path, users)
        unchanged, new, in_a_play, limit = best(
            lambda: module(path, users),
            lambda: with_new_file(module, users),
            lambda: with_new_file(one_task, users),
            lambda: bcrypt_alone(count, OUR_COST),
        )
    alone = f"{count} bcrypts of cost {OUR_COST} on all cores"
    row(f"{count} new users, the module", new, alone, limit)
    row(f"{count} users that are there already, the module", unchanged, alone, limit)
    row(f"{count} new users, ansible-playbook with one task", in_a_play, alone, limit)


def bench_against_community(count: int) -> None:
    users = make_users(count, COMMUNITY_COST)
    ours, theirs = best(
        lambda: with_new_file(one_task, users), lambda: with_new_file(one_item_each, users), rounds=1
    )
    row(
        f"{count} new users of cost {COMMUNITY_COST}, one task",
        ours,
        f"{count} items of community.general.htpasswd",
        theirs,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--users", type=int, default=200, help="users to add in one task")
    parser.add_argument("--file-users", type=int, default=5000, help="users in the file that gets one more")
    options = parser.parse_args()
    print("| what | took | against | took | ratio |")
    print("|---|---|---|---|---|")
    bench_one(options.file_users)
    bench_against_bcrypt(options.users)
    bench_against_community(options.users)


if __name__ == "__main__":
    main()
