#!/usr/bin/env python3
"""Several stores: what a second and third one cost, how fast one that was away catches up, scrub and heal; and prune beside peers.

    stores.py stores --corpus DIR --scratch DIR     the daemons of a practice over the corpus, folders and an S3 server as stores
    stores.py prune --corpus DIR --scratch DIR      ten generations of the corpus, then all but the newest five are deleted

Prints Markdown rows. CPU seconds are those of the daemon that does the work. Every store is verified at the end, and a repository
that was pruned is read whole; a run in which that fails ends with an error.
"""
import argparse
import copy
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

import corpora
import measure
import servers
from compare import FOREIGN, ROOT
from scale import Repository
from tools import TOOLS

GENERATIONS, KEEP = 10, 5
# Of each generation: so many files in a hundred get new content in a third of their bytes.
CHANGED_PERCENT = 10
FLOWS = {
    "backupd": "backupd prune --repo {repo} --keep-last %d --now --rewrite-max 100G --agreed-by A --agreed-by B" % KEEP,
    "restic": "restic forget -q --keep-last %d --group-by '' --prune --max-unused 5%%" % KEEP,
    "borg": "borg prune --keep-last %d && borg compact" % KEEP,
}


class Practice:
    """A folder that is backed up by real daemons into `count` stores; the last is an S3 server if there are several."""

    def __init__(self, a, count):
        self.dir, self.live, self.running = a.scratch / "practice", a.corpus / "live", {}
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        self.s3 = None
        stores = [self.folder(f"s{n}") for n in range(count if count == 1 else count - 1)]
        if count > 1:
            stores.append(self.remote())
        self.names = [f"s{n}" for n in range(count)]
        self.write("serve", f'writer_credential = "writer.cred"\nquorum = 1\ndisk_reserve_bytes = 1000000\n'
                   f'report_key = "report.pub"\nsite = "here"\n[[source]]\nname = "files"\nkind = "folder"\n'
                   f'path = "{self.live}"\nschedule = "0 4 1 1 *"\n', stores)
        self.write("verifier", 'host = "b"\nsite = "b"\nopen_key = "open.key"\nreport_key = "report.key"\n'
                   'drill_schedule = "0 5 1 1 *"\nsandbox_dir = "sandbox"\nsame_host_as_writer = true\n'
                   '[probe]\nmode = "spawn"\nprogram = "/bin/false"\n', stores)
        self.write("maintain", 'maintain_schedule = "0 6 1 1 *"\nbytes_max = 1000000000000\ntime_max_s = 36000\n', stores)
        self.ask("init", "serve", "--kit", "kit.json", "--write-paper-key", "paper.txt")
        self.start("serve")
        self.start("maintain")

    def folder(self, name):
        return f'[[store]]\nname = "{name}"\nkind = "folder"\npath = "{self.dir / name}"\nsite = "{name}"\nprovider = "{name}"\n'

    def remote(self):
        name = "s2"
        self.s3 = servers.start("s3-server", self.dir / "remote")
        f = self.s3.fields
        for part in ("key", "secret"):
            path = self.dir / part
            path.write_text(f[part])
            path.chmod(0o600)
        return (f'[[store]]\nname = "{name}"\nkind = "s3"\nendpoint = "{f["endpoint"]}"\nbucket = "{f["bucket"]}"\nprefix = "p"\n'
                f'region = "us-east-1"\naccess_key_file = "key"\nsecret_key_file = "secret"\nsite = "{name}"\nprovider = "{name}"\n')

    def write(self, daemon, text, stores):
        head = f'practice = "Bench"\ntime_zone = "UTC"\nstate_dir = "state/{daemon}"\nsocket = "{daemon}.sock"\n'
        # Top-level keys stand before the first table.
        (self.dir / f"{daemon}.toml").write_text(head + text + "".join(stores))

    def start(self, daemon):
        with open(self.dir / f"{daemon}.log", "a") as log:
            self.running[daemon] = subprocess.Popen(["backupd", daemon, "--config", f"{daemon}.toml"], cwd=self.dir, stdout=log,
                                                    stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        wait(lambda: (self.dir / f"{daemon}.sock").exists(), f"{daemon} does not start: see its log")

    def ask(self, verb, daemon, *more):
        done = subprocess.run(["backupd", verb, "--config", f"{daemon}.toml", "--json", *more], cwd=self.dir, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL)
        last = done.stdout.strip().splitlines()[-1:] or ["{}"]
        return done.returncode, json.loads(last[0]), done.stderr[-500:]

    def must(self, verb, daemon, *more):
        code, said, problem = self.ask(verb, daemon, *more)
        if code:
            sys.exit(f"{verb}: exit {code}: {said} {problem}")
        return said

    def timed(self, daemon, work):
        os.sync()
        pid = self.running[daemon].pid
        cpu, start = measure.cpu_of(pid), time.monotonic()
        said = work()
        return {"wall": time.monotonic() - start, "cpu": measure.cpu_of(pid) - cpu, "said": said}

    def conditions(self):
        return {store["name"]: store["condition"] for store in self.must("status", "serve")["stores"]}

    def stop(self):
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            process.wait(60)
        self.running = {}
        if self.s3:
            self.s3.stop()


def wait(done, problem, seconds=900):
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            sys.exit(problem)
        time.sleep(0.05)


def packs(folder):
    found = [p for p in folder.rglob("*") if p.is_file() and "packs" in p.parts]
    return found, sum(p.stat().st_size for p in found)


def row(what, m, size=0, more=""):
    rate = f"{size / 1e6 / m['wall']:.0f}" if size else "-"
    core = f"{size / 1e6 / m['cpu']:.0f}" if size and m["cpu"] > 0 else "-"
    print(f"| {what} | {m['wall']:.2f} | {m['cpu']:.2f} | {size / 1e6:.0f} | {rate} | {core} | {more} |", flush=True)


def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in ("wall", "cpu")}


def first(a, count):
    """The first snapshot into so many stores."""
    runs = []
    for _ in range(a.rounds):
        p = Practice(a, count)
        try:
            runs.append(p.timed("serve", lambda: p.must("snapshot", "serve")))
            wait(lambda: set(p.conditions().values()) == {"ok"}, "a store does not become complete")
        finally:
            p.stop()
    return medians(runs)


def stores(a):
    corpora.switch(a.corpus, 1)
    print("| what | wall s | cpu s | MB | MB/s | MB per cpu s | |\n|---|---|---|---|---|---|---|")
    source = measure.disk(a.corpus / "live")[0]
    one, three = first(a, 1), first(a, 3)
    row("first snapshot, one store (folder)", one, source)
    row("first snapshot, three stores (two folders, one S3 server)", three, source,
        f"{three['wall'] / one['wall']:.2f} of the time, {three['cpu'] / one['cpu']:.2f} of the cpu")
    p = Practice(a, 3)
    # Only the measured part may end early; the daemons never outlive it.
    try:
        with_faults(p)
    finally:
        p.stop()
    shutil.rmtree(p.dir)


def with_faults(p):
    p.s3.stop()
    p.must("snapshot", "serve")
    held = packs(p.dir / "s0")[1]
    p.s3.again()
    away = time.monotonic()
    wait(lambda: packs(p.s3.data)[0], "the store is not noticed", seconds=180)
    noticed = time.monotonic() - away
    row("catch-up of a store that was away: from the first object on", p.timed("serve", lambda: wait(
        lambda: p.conditions()["s2"] == "ok", "the store is not caught up")), held,
        f"S3 server, filled from a folder; noticed after {noticed:.0f} s")
    scrub = p.timed("maintain", lambda: p.must("heal", "maintain", "--all", "--store", "s0"))
    row("scrub of one store, every object read", scrub, held)
    # What is missing at a store is what was there when it was looked at last.
    p.must("heal", "maintain", "--all", "--store", "s1")
    found = packs(p.dir / "s1")[0]
    lost = random.Random(1).sample(sorted(found), max(1, len(found) // 100))
    size = sum(f.stat().st_size for f in lost)
    for f in lost:
        f.unlink()
    row(f"heal of {len(lost)} lost packs of {len(found)}", p.timed("maintain", lambda: p.must(
        "heal", "maintain", "--all", "--store", "s1")), size, "every object of the store is read, too")
    if not all(f.exists() for f in lost):
        sys.exit("a lost pack was not healed")


def change(tree, files, generation):
    """New bytes in a third of some files; the same for every tool."""
    rng = random.Random(generation)
    for name in rng.sample(files, len(files) * CHANGED_PERCENT // 100):
        with open(tree / name, "r+b") as f:
            size = os.fstat(f.fileno()).st_size
            f.seek(size // 3)
            for at in range(0, size // 3, corpora.MB):
                f.write(rng.randbytes(min(corpora.MB, size // 3 - at)))


def pruned(a, name):
    """One tool, from nothing: its ten generations, its prune, and all that is left read."""
    tree, tool = a.scratch / "tree", copy.copy(TOOLS[name])
    # One line more of the tool: Repository.run fills it in as it does the others.
    tool.prune = FLOWS[name]
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(["cp", "-a", a.corpus / "live", tree], check=True)
    files = sorted(str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file())
    repository = Repository(a, tool, tree)
    repository.run("init")
    for generation in range(GENERATIONS):
        change(tree, files, generation)
        repository.run("backup", f"g{generation}", tree)
    before = measure.disk(repository.dir / "repo")[0]
    m = repository.run("prune")
    after = measure.disk(repository.dir / "repo")[0]
    repository.run("check", f"g{GENERATIONS - 1}")
    shutil.rmtree(repository.dir)
    shutil.rmtree(tree)
    return {"wall": m["wall"], "cpu": m["cpu"], "peak": m["rss"] / 1e6, "before": before / 1e6, "after": after / 1e6}


def prune(a):
    corpora.switch(a.corpus, 1)
    a.scratch.mkdir(parents=True, exist_ok=True)
    runs = {name: [] for name in a.tools.split(",")}
    for _ in range(a.rounds):
        for name, told in runs.items():
            told.append(pruned(a, name))
    print("| tool | wall s | cpu s | peak MB | repository before | after |\n|---|---|---|---|---|---|")
    for name, told in runs.items():
        m = {key: statistics.median(run[key] for run in told) for key in told[0]}
        print(f"| {name} | {m['wall']:.2f} | {m['cpu']:.2f} | {m['peak']:.0f} | {m['before']:.0f} MB | {m['after']:.0f} MB |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["stores", "prune"])
    p.add_argument("--corpus", type=lambda x: pathlib.Path(x).absolute(), required=True)
    p.add_argument("--scratch", type=lambda x: pathlib.Path(x).absolute(), required=True)
    p.add_argument("--tools", default="backupd,restic,borg", help="of prune")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--peers", type=pathlib.Path, default=os.environ.get("PEERS"))
    p.add_argument("--bin", type=pathlib.Path, default=pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release")
    a = p.parse_args()
    paths = [str(a.bin.absolute())] + ([str(pathlib.Path(a.peers).absolute() / "bin")] if a.peers else [])
    os.environ["PATH"] = ":".join([*paths, os.environ["PATH"]])
    for name in [k for k in os.environ if k.startswith(FOREIGN)]:
        del os.environ[name]
    print(f"load {os.getloadavg()[0]:.1f}\n", flush=True)
    stores(a) if a.what == "stores" else prune(a)


if __name__ == "__main__":
    main()
