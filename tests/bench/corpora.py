#!/usr/bin/env python3
"""Makes EMR-shaped data from a seed, and the day-2 change of it.

    corpora.py make --out DIR --scale small|large|<MB> [--seed N] [--parts docs]
    corpora.py apply --out DIR        # live tree becomes day 2 (renames only)
    corpora.py revert --out DIR       # ... and day 1 again

DIR/live    what is backed up (db/, docs/, images/)
DIR/delta   the files that day 2 adds or changes; DIR/undo holds day 1's while day 2 is live
DIR/corpus.json   seed, sizes, counts, what day 2 does, which day is live

Day 2 is applied by renames, so every unchanged file keeps inode, mtime and ctime, as on
a real server, and a switch of days costs nothing even at 8 GB. One seed gives the same bytes
with one version of Python and SQLite.
"""
import argparse
import itertools
import json
import os
import pathlib
import random
import shutil
import sqlite3
import sys
import time
import zlib

SCALES = {"small": 200, "large": 8192}          # MB in total
SHARE = {"db": 0.35, "docs": 0.15, "images": 0.50}
DAY1, DAY2 = 1_750_000_000, 1_750_086_400       # mtimes, in the past on purpose
MB = 1 << 20

# ---------------------------------------------------------------- text

STEMS = """patient denies reports chest pain shortness breath nausea vomiting fever chills history hypertension
diabetes mellitus type hyperlipidemia asthma copd medication lisinopril metformin atorvastatin albuterol
omeprazole daily twice mg tablet oral follow up weeks months blood pressure heart rate regular rhythm lungs clear
bilaterally abdomen soft tender distended extremities edema neurological intact alert oriented plan continue start
stop increase decrease dose labs ordered cbc cmp a1c lipid panel imaging xray ct mri ultrasound normal abnormal mild
moderate severe acute chronic left right upper lower quadrant no evidence of with without and the for was is to on in
at by his her their discussed risks benefits understands agrees counselled smoking alcohol exercise diet weight loss
referral cardiology endocrinology pulmonology surgery physical therapy return if worsening symptoms""".split()
GIVEN = "Ana Ben Carla Dmitri Elif Farid Grace Hana Ivan Jonas Kira Liam Mara Nils Olga Priya Quinn Rosa Sven Tara".split()
FAMILY = "Abel Berg Costa Diaz Ekholm Fischer Garcia Haas Ito Jansen Kaur Lopez Moser Novak Okafor Patel Rossi Silva".split()


class Text:
    """Clinical-looking prose: Zipf-weighted words, some boilerplate sentences, numbers."""

    def __init__(self, rng):
        self.rng = rng
        made = set(STEMS)
        while len(made) < 6000:
            made.add("".join(rng.choices("aeioubcdfglmnprstvy", k=rng.randint(4, 12))))
        self.words = STEMS + sorted(made - set(STEMS))
        self.cum = list(itertools.accumulate(1 / (i + 3) for i in range(len(self.words))))
        self.boiler = [self.fresh() for _ in range(400)]

    def fresh(self):
        r = self.rng
        s = " ".join(r.choices(self.words, cum_weights=self.cum, k=r.randint(6, 18)))
        if r.random() < 0.35:
            s += f" {r.randint(1, 240)}/{r.randint(30, 120)}"
        return s.capitalize() + ". "

    def note(self, size):
        r, parts, n = self.rng, [], 0
        while n < size:
            s = r.choice(self.boiler) if r.random() < 0.25 else self.fresh()
            parts.append(s)
            n += len(s)
        return "".join(parts)[:size]


def uid(rng):
    h = f"{rng.getrandbits(128):032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def day(rng, recent=False):
    return f"20{rng.randint(24, 25) if recent else rng.randint(10, 25)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


# ---------------------------------------------------------------- A: the database

SCHEMA = """
CREATE TABLE patient(id TEXT PRIMARY KEY, family TEXT, given TEXT, born TEXT, mrn TEXT, address TEXT, phone TEXT);
CREATE TABLE encounter(id INTEGER PRIMARY KEY, patient TEXT, at TEXT, kind TEXT, provider INTEGER, status TEXT);
CREATE TABLE observation(id INTEGER PRIMARY KEY, encounter INTEGER, code TEXT, value REAL, unit TEXT, at TEXT);
CREATE TABLE note(id INTEGER PRIMARY KEY, encounter INTEGER, author INTEGER, signed TEXT, body TEXT);
CREATE INDEX encounter_patient ON encounter(patient, at);
CREATE INDEX observation_encounter ON observation(encounter);
CREATE INDEX note_encounter ON note(encounter);
"""
UNITS = ["mmHg", "mg/dL", "bpm", "kg", "%", "mmol/L"]


def rows(rng, text, first, count, patients):
    """One batch of encounters: (patients, encounters, observations, notes)."""
    ps, es, os_, ns = [], [], [], []
    for e in range(first, first + count):
        if not patients or rng.random() < 0.12:
            p = uid(rng)
            patients.append(p)
            ps.append((p, rng.choice(FAMILY), rng.choice(GIVEN), day(rng), f"{rng.randint(0, 10**9):09d}",
                       f"{rng.randint(1, 999)} {rng.choice(text.words).title()} St", f"555-{rng.randint(0, 9999):04d}"))
        at = day(rng)
        es.append((e, rng.choice(patients), at, rng.choice(["office", "phone", "lab"]), rng.randint(1, 40), "final"))
        for k in range(8):
            os_.append((e * 8 + k, e, f"{rng.randint(1000, 99999)}-{k}", round(rng.gauss(100, 30), 1), rng.choice(UNITS), at))
        ns.append((e, e, rng.randint(1, 40), at, text.note(rng.randint(400, 3600))))
    return ps, es, os_, ns


def hot(rng, top, n):
    """n ids below top: four of five among the newest tenth, as charts are really touched."""
    return sorted({rng.randint(int(top * 0.9), top - 1) if rng.random() < 0.8 else rng.randint(0, top - 1) for _ in range(n)})


def day2_values(rng, text, count):
    for e in hot(rng, count, int(count * 0.015)):
        yield e, text.note(rng.randint(400, 3600)), round(rng.gauss(100, 30), 1)


class Sqlite:
    def __init__(self, dir):
        dir.mkdir(parents=True, exist_ok=True)
        self.con = sqlite3.connect(dir / "emr.sqlite")
        self.con.executescript("PRAGMA page_size=4096; PRAGMA journal_mode=DELETE; PRAGMA synchronous=OFF;")

    def schema(self):
        self.con.executescript(SCHEMA)

    def insert(self, ps, es, obs, ns):
        c = self.con
        c.executemany("INSERT INTO patient VALUES(?,?,?,?,?,?,?)", ps)
        c.executemany("INSERT INTO encounter VALUES(?,?,?,?,?,?)", es)
        c.executemany("INSERT INTO observation VALUES(?,?,?,?,?,?)", obs)
        c.executemany("INSERT INTO note VALUES(?,?,?,?,?)", ns)
        c.commit()

    def update(self, changes):
        for e, body, value in changes:
            self.con.execute("UPDATE note SET body=?, signed='2025-06-16' WHERE id=?", (body, e))
            self.con.execute("UPDATE observation SET value=? WHERE id=?", (value, e * 8))
        self.con.commit()

    def size(self):
        return self.con.execute("PRAGMA page_count").fetchone()[0] * 4096

    def close(self):
        self.con.close()


def make_db(dir, want, rng, text):
    db, patients, count = Sqlite(dir), [], 0
    db.schema()
    batch = 1000
    while db.size() < want:
        db.insert(*rows(rng, text, count, batch, patients))
        count += batch
    db.close()
    return {"encounters": count, "patients": len(patients)}


def change_db(dir, rng, text, count):
    db = Sqlite(dir)
    db.update(day2_values(rng, text, count))
    new = max(1, int(count * 0.003))
    db.insert(*rows(rng, text, count, new, []))
    db.close()
    return {"rows_updated": "1.5% of encounters (note + one observation)", "encounters_added": new}


# ---------------------------------------------------------------- B: documents

def fhir(rng, text, size, patient):
    out = {"resourceType": "Bundle", "id": uid(rng), "type": "document", "timestamp": day(rng), "entry": []}
    n = 0
    while n < size:
        e = {"fullUrl": f"urn:uuid:{uid(rng)}", "resource": {
            "resourceType": "Observation", "status": "final", "subject": {"reference": f"Patient/{patient}"},
            "code": {"coding": [{"system": "loinc", "code": f"{rng.randint(1000, 99999)}-{rng.randint(0, 9)}",
                                 "display": text.fresh().strip()}]},
            "effectiveDateTime": day(rng), "valueQuantity": {"value": round(rng.gauss(100, 30), 1), "unit": rng.choice(UNITS)}}}
        out["entry"].append(e)
        n += 700
    return json.dumps(out, indent=2)


def ccda(rng, text, size, patient):
    head = f'<?xml version="1.0"?>\n<ClinicalDocument><id root="{uid(rng)}"/><recordTarget><patientRole><id extension="{patient}"/></patientRole></recordTarget>\n'
    body, n = [], 0
    while n < size:
        s = (f'  <component><section><templateId root="2.16.840.1.{rng.randint(100000, 999999)}"/><code code="{rng.randint(10000, 99999)}-{rng.randint(0, 9)}"/>'
             f"<title>{rng.choice(text.words).title()}</title><text>{text.note(rng.randint(200, 900))}</text></section></component>\n")
        body.append(s)
        n += len(s)
    return head + "".join(body) + "</ClinicalDocument>\n"


def plain(rng, text, size, patient):
    return f"Patient: {patient}\nDate: {day(rng)}\n\n" + text.note(size)


KINDS = [("json", fhir), ("xml", ccda), ("txt", plain)]


def stamp(path, when):
    """A time with a fraction of a second, as real files have, the same for the same name."""
    t = int(when) * 10**9 + zlib.crc32(path.name.encode()) % 10**9
    os.utime(path, ns=(t, t))


def write(path, data, when):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    stamp(path, when)


def doc(rng, text, patient):
    ext, make = KINDS[rng.choices((0, 1, 2), (5, 3, 2))[0]]
    size = int(1024 * 20 ** rng.random())                     # 1 to 20 KB, small ones commoner
    return f"{patient[:2]}/{patient}/{ext}-{rng.getrandbits(48):012x}.{ext}", make(rng, text, size, patient)


def make_docs(dir, want, rng, text):
    total = files = 0
    while total < want:
        patient = uid(rng)
        for _ in range(rng.randint(2, 40)):
            name, data = doc(rng, text, patient)
            write(dir / name, data, DAY1 - rng.randint(0, 10**7))
            total += len(data)
            files += 1
    return {"files": files}


def change_docs(live, delta, rng, text):
    names = sorted(p.relative_to(live) for p in live.rglob("*") if p.is_file())
    picked = rng.sample(names, max(3, int(len(names) * 0.005)))
    third = len(picked) // 3
    changed, deleted = picked[:third], picked[third:2 * third]
    for name in changed:
        data = (live / name).read_bytes()
        at = rng.randint(0, len(data))
        write(delta / name, data[:at] + text.fresh().encode() + data[at:], DAY2)
    for _ in range(len(picked) - 2 * third):
        name, data = doc(rng, text, uid(rng))
        write(delta / name, data, DAY2)
    return {"changed": len(changed), "deleted": len(deleted), "added": len(picked) - 2 * third}, deleted


# ---------------------------------------------------------------- C: images, PDFs

def blob_sizes(rng, want, top):
    left = want
    while left > 0:
        n = int(256 * 1024 * (top / (256 * 1024)) ** rng.random())
        yield min(n, max(left, 65536))
        left -= n


def write_blob(path, parts, when):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as f:
        for p in parts:
            f.write(p)
    stamp(path, when)


def noise(rng, n):
    while n > 0:
        k = min(n, MB)
        yield rng.randbytes(k)
        n -= k


def header(rng, kind):
    return (f"{kind} " + " ".join(f"({rng.randint(0, 65535):04x},{rng.randint(0, 65535):04x}) LO {uid(rng)}" for _ in range(20)) + "\n").encode()


def make_images(dir, want, rng, scale_mb):
    """85% fresh studies; the rest are second versions of one: other header, tail appended."""
    top = 64 * MB if scale_mb >= 2000 else 16 * MB
    fresh = int(want * 0.85)
    names = []
    for i, n in enumerate(blob_sizes(rng, fresh, top)):
        ext = rng.choices(("dcm", "pdf", "jpg"), (6, 3, 1))[0]
        p = dir / f"study-{i:05d}.v1.{ext}"
        write_blob(p, itertools.chain([header(rng, ext)], noise(rng, n)), DAY1 - rng.randint(0, 10**7))
        names.append(p)
    left = want - fresh
    while left > 0:
        src = rng.choice(names)
        data = src.read_bytes()
        cut = data.index(b"\n") + 1
        write_blob(src.with_name(src.name.replace(".v1.", f".v{rng.randint(2, 99)}.")),
                   [header(rng, "re-issued" * rng.randint(1, 3)), data[cut:], rng.randbytes(rng.randint(1000, 200000))], DAY1 - rng.randint(0, 10**6))
        left -= len(data)
    return {"files": sum(1 for _ in dir.iterdir())}


def change_images(live, delta, rng):
    files = sorted(live.iterdir(), key=lambda p: (p.stat().st_size, p.name))
    done = []
    for p, what in zip(reversed(files), ("bytes inserted in the middle", "4 KB overwritten", "bytes appended")):
        data = p.read_bytes()
        mid = len(data) // 2
        parts = {"bytes inserted in the middle": [data[:mid], rng.randbytes(1013), data[mid:]],
                 "4 KB overwritten": [data[:mid], rng.randbytes(4096), data[mid + 4096:]],
                 "bytes appended": [data, rng.randbytes(50_000)]}[what]
        write_blob(delta / p.name, parts, DAY2)
        done.append(f"{p.name}: {what}")
    for i in range(max(1, len(files) // 200)):
        write_blob(delta / f"study-new-{i:05d}.v1.dcm", itertools.chain([header(rng, "dcm")], noise(rng, rng.randint(MB // 2, 4 * MB))), DAY2)
    return done


# ---------------------------------------------------------------- day 1, day 2, switching

def tree_bytes(folder):
    return sum(os.lstat(os.path.join(d, f)).st_size for d, _, fs in os.walk(folder) for f in fs)


def make(out, scale, seed, parts):
    mb = SCALES.get(scale) or int(scale)
    live, delta = out / "live", out / "delta"
    if out.exists() and any(out.iterdir()):
        sys.exit("the folder is not empty: choose another --out")
    need = mb * sum(SHARE[p] for p in parts) * 1.6 * MB
    out.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(out).free < need:
        sys.exit(f"needs about {need / MB:.0f} MB free")
    began = time.monotonic()
    info = {"seed": seed, "scale_mb": mb, "parts": parts, "day": 1, "day1": {}, "day2": {}}
    rng = {k: random.Random(f"{seed}/{k}") for k in ("text", "db", "docs", "images", "db2", "docs2", "images2")}
    text, deleted = Text(rng["text"]), []
    # All of day 1 comes before all of day 2: the parts take words from one stream.
    if "db" in parts:
        info["day1"]["db"] = make_db(live / "db", mb * MB * SHARE["db"], rng["db"], text)
    if "docs" in parts:
        info["day1"]["docs"] = make_docs(live / "docs", mb * MB * SHARE["docs"], rng["docs"], text)
    if "images" in parts:
        info["day1"]["images"] = make_images(live / "images", mb * MB * SHARE["images"], rng["images"], mb)
    if "db" in parts:
        shutil.copytree(live / "db", delta / "db", copy_function=shutil.copy2)
        info["day2"]["db"] = change_db(delta / "db", rng["db2"], text, info["day1"]["db"]["encounters"])
        stamp(live / "db" / "emr.sqlite", DAY1)
        stamp(delta / "db" / "emr.sqlite", DAY2)
    if "docs" in parts:
        info["day2"]["docs"], gone = change_docs(live / "docs", delta / "docs", rng["docs2"], text)
        deleted = [f"docs/{g}" for g in gone]
    if "images" in parts:
        info["day2"]["images"] = change_images(live / "images", delta / "images", rng["images2"])
    for folder, _, _ in os.walk(live, topdown=False):
        stamp(pathlib.Path(folder), DAY1)
    info["deleted"] = sorted(deleted)
    info["changed_or_added"] = sorted(str(p.relative_to(delta)) for p in delta.rglob("*") if p.is_file())
    info["bytes"] = {k: tree_bytes(live / k) for k in parts}
    info["delta_bytes"] = tree_bytes(delta)
    info["files"] = sum(len(f) for _, _, f in os.walk(live))
    info["seconds"] = round(time.monotonic() - began, 1)
    save(out, info)
    return info


def load(out):
    return json.loads((out / "corpus.json").read_text())


def save(out, info):
    (out / "corpus.json").write_text(json.dumps(info, indent=1))


def move(src, dst):
    dst.parent.mkdir(parents=True, exist_ok=True)
    src.rename(dst)


def switch(out, to):
    """Makes day `to` live; does nothing if it is."""
    info = load(out)
    if info["day"] == to:
        return
    live, delta, undo = out / "live", out / "delta", out / "undo"
    if to == 2:
        for name in info["changed_or_added"]:
            if (live / name).exists():
                move(live / name, undo / name)
            move(delta / name, live / name)
        for name in info["deleted"]:
            move(live / name, undo / name)
    else:
        for name in info["changed_or_added"]:
            move(live / name, delta / name)
            if (undo / name).exists():
                move(undo / name, live / name)
        for name in info["deleted"]:
            move(undo / name, live / name)
        for d, _, _ in os.walk(live, topdown=False):        # folders that only day 2 had
            if not os.listdir(d) and "docs" in d:
                os.rmdir(d)
    for d in {d for n in info["changed_or_added"] + info["deleted"] for d in (live / n).parents}:
        if d.is_dir() and live in (d, *d.parents):
            stamp(d, DAY2 if to == 2 else DAY1)
    info["day"] = to
    save(out, info)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["make", "apply", "revert"])
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--scale", default="small")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--parts", default=",".join(SHARE), help="only these of db,docs,images (their size stays their share of the scale)")
    a = p.parse_args()
    parts = a.parts.split(",")
    if unknown := [x for x in parts if x not in SHARE]:
        sys.exit(f"--parts: no such part: {', '.join(unknown)}; choose from {', '.join(SHARE)}")
    if a.what == "make":
        info = make(a.out.absolute(), a.scale, a.seed, parts)
        print(json.dumps({k: v for k, v in info.items() if k not in ("deleted", "changed_or_added")}, indent=1))
    else:
        switch(a.out.absolute(), 2 if a.what == "apply" else 1)


if __name__ == "__main__":
    main()
