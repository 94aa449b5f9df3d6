#!/usr/bin/env python3
"""Several stores: what a second and third one cost, how fast one that was away catches up, scrub and heal; and prune beside peers.

    stores.py stores --corpus DIR --scratch DIR     the daemons of a practice over the corpus, folders and an S3 server as stores
    stores.py prune --corpus DIR --scratch DIR      ten generations of the corpus, then all but the newest five are deleted
    stores.py year --scratch DIR                    what a store is asked and holds at a snapshot every five minutes, for a year

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

    def __init__(self, a, count, live=None, asked=False):
        self.dir, self.live, self.running = a.scratch / "practice", live or a.corpus / "live", {}
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        self.s3, self.asked = None, None
        remote = count > 1 or asked
        stores = [self.folder(f"s{n}") for n in range(count - remote)]
        if remote:
            stores.append(self.remote(f"s{count - 1}", asked))
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

    def remote(self, name, asked):
        self.s3 = servers.start("s3-server", self.dir / "remote")
        f = self.s3.fields
        if asked:
            self.asked = Asked(self.s3.port)
            f["endpoint"] = self.asked.endpoint
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
        if self.asked:
            self.asked.process.terminate()


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


# Of each snapshot of a day: pages of a database, and one new document.
DAY, PAGES, PAGE, DOCUMENT = 288, 4, 16 << 10, 20 << 10
YEAR_S = 365 * 24 * 3600
# US dollars, S3 Standard in us-east-1: for a million requests of each kind, and for a gigabyte and month.
PRICES = {"put": 5.0, "list": 5.0, "get": 0.4, "head": 0.4, "delete": 0.0, "post": 5.0}
PRICE_GB_MONTH = 0.023
LOCK_DAYS = 30


class Asked:
    """The requests that go through a counting proxy before the practice's S3 server."""

    def __init__(self, port):
        argv = [sys.executable, pathlib.Path(__file__).with_name("count_requests.py"), "--to", str(port)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.endpoint = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def so_far(self):
        self.process.send_signal(signal.SIGUSR1)
        return json.loads(self.process.stdout.readline())

    def during(self, work):
        before = self.so_far()
        work()
        return {kind: count - before.get(kind, 0) for kind, count in self.so_far().items()}


def year(a):
    data = a.scratch / "year"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    p = Practice(a, 1, data, asked=True)
    try:
        tell_year(p, data)
    finally:
        p.stop()
    shutil.rmtree(p.dir)
    shutil.rmtree(data)


def tell_year(p, data):
    database, rng = data / "records.sqlite", random.Random(5)
    database.write_bytes(b"SQLite format 3\0" + rng.randbytes((64 << 20) - 16))
    p.must("snapshot", "serve")
    wait(lambda: set(p.conditions().values()) == {"ok"}, "the store does not become complete")
    held = p.s3.data / servers.BUCKET
    before, took = measure.disk(held), time.monotonic()

    def day():
        for number in range(DAY):
            with open(database, "r+b") as f:
                for page in rng.sample(range(1, (64 << 20) // PAGE), PAGES):
                    f.seek(page * PAGE)
                    f.write(rng.randbytes(PAGE))
            (data / f"document-{number}").write_bytes(rng.randbytes(DOCUMENT))
            p.must("snapshot", "serve")
    asked, took = p.asked.during(day), time.monotonic() - took
    after = measure.disk(held)
    idle_s = 300
    idle = p.asked.during(lambda: time.sleep(idle_s))
    # What is asked every minute, whether there is a snapshot or not, is counted once.
    per = {kind: max(0, count - idle.get(kind, 0) * took / idle_s) / DAY for kind, count in asked.items()}
    requests = {kind: per.get(kind, 0) * DAY * 365 + idle.get(kind, 0) * YEAR_S / idle_s for kind in set(per) | set(idle)}
    bytes_day, objects_day = after[0] - before[0], after[1] - before[1]
    print("| | a snapshot | a minute without one | a day | a year |\n|---|---|---|---|---|")
    for kind, count in sorted(requests.items()):
        print(f"| {kind} requests | {per.get(kind, 0):.1f} | {idle.get(kind, 0) * 60 / idle_s:.1f} | {count / 365:,.0f} | {count:,.0f} |")
    print(f"| objects before any prune | {objects_day / DAY:.1f} | - | {objects_day:,} | {objects_day * 365:,} |")
    print(f"| MB before any prune | {bytes_day / DAY / 1e6:.2f} | - | {bytes_day / 1e6:.0f} | {bytes_day * 365 / 1e6:,.0f} |")
    changed = PAGES * PAGE + DOCUMENT
    print(f"| MB that changed | {changed / 1e6:.2f} | - | {changed * DAY / 1e6:.0f} | {changed * DAY * 365 / 1e6:,.0f} |")
    asked_usd = sum(count / 1e6 * PRICES[kind] for kind, count in requests.items())
    print(f"\nrequests: {asked_usd:.0f} US dollars a year")
    # Whatever stays is locked: each day every version is asked for its lock, which is moved when half of it is over.
    for days, what in [(365, "without a prune"), (35, "where a prune keeps what 35 days of it make")]:
        held_days = sum(min(day, days) for day in range(365))
        gets, puts = objects_day * held_days, objects_day * held_days / (LOCK_DAYS / 2)
        usd = gets / 1e6 * PRICES["get"] + puts / 1e6 * PRICES["put"]
        locked_gb = bytes_day * min(days, 365) / 1e9
        print(f"locks, computed, {what}: up to {locked_gb:.1f} GB locked ({locked_gb * PRICE_GB_MONTH * 12:.2f} US dollars a year at the end), "
              f"{gets:,.0f} get and {puts:,.0f} put requests a year, {usd:.0f} US dollars")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["stores", "prune", "year"])
    p.add_argument("--corpus", type=lambda x: pathlib.Path(x).absolute(), help="of stores and prune")
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
    {"stores": stores, "prune": prune, "year": year}[a.what](a)


if __name__ == "__main__":
    main()
