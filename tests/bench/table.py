"""The table of a run, and the ratios to the aims."""
import statistics

US = "backupd"
# Column: heading, step, what is measured, how it is shown.
COLUMNS = [("first s", "first", "wall", 2), ("cpu", "first", "cpu", 2), ("MB", "first", "rss", 0),
           ("unchanged s", "unchanged", "wall", 2), ("day 2 s", "day2", "wall", 2), ("cpu", "day2", "cpu", 2),
           ("restore s", "restore", "wall", 2), ("cpu", "restore", "cpu", 2), ("MB", "restore", "rss", 0),
           ("verify s", "check", "wall", 2), ("cpu", "check", "cpu", 2), ("repo MB", "first", "size", 1),
           ("+day 2 MB", "day2", "added", 1), ("objects", "day2", "files", 0)]
# Aim: name, step, what, at most so much of the best encrypted peer's.
AIMS = [("first backup", "first", "wall", 0.35), ("unchanged", "unchanged", "wall", 0.5), ("day 2", "day2", "wall", 0.5),
        ("added on day 2", "day2", "added", 0.5), ("restore", "restore", "wall", 0.6),
        ("verify --read-data", "check", "wall", 0.35), ("repository", "first", "size", 0.93)]
FIRST_TO_TAR = 0.6
# Where the corpus is docs alone, in place of the last: against these, and no larger than bupstash and tar.
DOCS_REPOSITORY, DOCS_PEERS = 0.65, ("restic", "rustic", "borg")
RESTORE_TO_LINK = 1.3
PEAK_MB = 150


class Medians:
    def __init__(self, rounds):
        self.rounds = rounds

    def of(self, tool, step, what):
        values = [v for r in self.rounds if (v := self.one(r.get(tool, {}), step, what)) is not None]
        return statistics.median(values) if values else None

    @staticmethod
    def one(got, step, what):
        if what == "added":
            after, before = got.get("day2", {}).get("size"), got.get("unchanged", {}).get("size")
            return None if after is None or before is None else after - before
        return got.get(step, {}).get(what)


def shown(value, what, digits):
    if value is None:
        return "-"
    return f"{value / 1e6 if what in ('rss', 'size', 'added') else value:.{digits}f}"


def row(cells):
    return "| " + " | ".join(cells) + " |"


def report(tools, rounds, a, parts):
    """Markdown; medians over the rounds."""
    medians = Medians(rounds)
    columns = COLUMNS + ([("server cpu", "first", "server_cpu", 2)] if a.s3 else [])
    out = [row(["tool", *(c[0] for c in columns)]), "|" + " --- |" * (len(columns) + 1)]
    for t in tools:
        out.append(row([t.name, *(shown(medians.of(t.name, s, w), w, d) for _, s, w, d in columns)]))
    if any(t.name == US for t in tools):
        out += ["", *ratios(tools, medians, a, parts)]
    return "\n".join(out)


def ratios(tools, medians, a, parts):
    peers = [t.name for t in tools if t.name != US and not t.bound]
    out = [row(["aim", "ours", "best peer", "ratio", "in CPU seconds", "aim at most", ""]), "|" + " --- |" * 7]
    for name, step, what, aim in AIMS:
        if what == "size" and parts == ["docs"]:
            continue
        if theirs := best(peers, medians, step, what):
            cpu = best(peers, medians, step, "cpu") if what == "wall" else None
            own = medians.of(US, step, "cpu")
            in_cpu = f"{own / cpu[0]:.2f} ({cpu[1]})" if cpu and cpu[0] and own is not None else "-"
            out.append(judged(name, what, medians.of(US, step, what), *theirs, aim, in_cpu))
    size = medians.of(US, "first", "size")
    if parts == ["docs"]:
        if theirs := best([p for p in peers if p in DOCS_PEERS], medians, "first", "size"):
            out.append(judged("repository of docs", "size", size, *theirs, DOCS_REPOSITORY))
        if bupstash := medians.of("bupstash", "first", "size"):
            out.append(judged("repository of docs", "size", size, bupstash, "bupstash", 1.0))
    if tar := medians.of("tar-zstd", "first", "wall"):
        own, cpu = medians.of(US, "first", "cpu"), medians.of("tar-zstd", "first", "cpu")
        in_cpu = f"{own / cpu:.2f}" if own is not None and cpu else "-"
        out.append(judged("first backup, to tar", "wall", medians.of(US, "first", "wall"), tar, "tar-zstd", FIRST_TO_TAR, in_cpu))
        out.append(judged("repository, to tar", "size", size, medians.of("tar-zstd", "first", "size"), "tar-zstd", 1.0))
    if a.mb_per_s:
        down = medians.of(US, "restore", "down")
        limit = None if down is None else down / (a.mb_per_s * 1e6)
        out.append(judged("restore, to the link's limit", "wall", medians.of(US, "restore", "wall"), limit, "link", RESTORE_TO_LINK))
    for step in ("first", "restore"):
        if peak := medians.of(US, step, "rss"):
            met = "met" if peak <= PEAK_MB * 1e6 else "MISSED"
            out.append(row([f"peak memory, {step}", f"{peak / 1e6:.0f} MB", "-", "-", "-", f"{PEAK_MB} MB", met]))
    return out


def best(peers, medians, step, what):
    return min(((v, p) for p in peers if (v := medians.of(p, step, what)) is not None), default=None)


def judged(name, what, ours, theirs, who, aim, cpu="-"):
    if ours is None or not theirs:
        return row([name, "-", "-", "-", "-", f"{aim:.2f}", "not measured"])
    ratio = ours / theirs
    return row([name, shown(ours, what, 2), f"{shown(theirs, what, 2)} ({who})", f"{ratio:.2f}", cpu, f"{aim:.2f}",
                "met" if ratio <= aim else "MISSED"])
