//! Measurements behind the engine's constants, by CPU seconds of one thread, on a corpus of corpora.py.
//!
//! ```text
//! tuning compress CORPUS [MB]   zstd level x segment size x part: ratio, compress and decompress speed (first MB of each part)
//! tuning strategy CORPUS [MB]   the parameters inside of a level, at segments of 2 MiB: hash bits, shortest match, strategy
//! tuning window CORPUS [MB]     length of segments and of the window, with the parameters that the engine uses
//! tuning chunks CORPUS          chunking x part: chunks on day 1, bytes that day 2 adds, compressed in segments of 1 MiB
//! tuning packs DIR [MB]         pack size x threads: wall seconds to write and fsync so many MB as packs into DIR
//! ```
//!
//! Each prints a Markdown table.

use anyhow::{Context, bail};
use fastcdc::v2020::FastCDC;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use zstd::zstd_safe::{CParameter, Strategy};

const PARTS: [&str; 3] = ["db", "docs", "images"];
const LEVELS: [i32; 6] = [-1, 1, 2, 3, 4, 6];
const SEGMENT_KIB: [usize; 6] = [256, 512, 1024, 2048, 4096, 8192];
/// Other work on the machine only ever makes a measurement larger: the smallest of so many counts.
const REPEATS: usize = 3;
const PACK_KIB: [usize; 5] = [64, 256, 1024, 4096, 16384];
const MB_DEFAULT: usize = 48;
const LEVEL_OF_CHUNKS: i32 = 3;
const SEGMENT_OF_CHUNKS: usize = 1 << 20;
const SEGMENT_OF_STRATEGIES: usize = 2 << 20;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mb = |text: &str| text.parse::<usize>().context("MB is a number");
    match arguments.as_slice() {
        ["compress", corpus] => compress(Path::new(corpus), MB_DEFAULT),
        ["compress", corpus, n] => compress(Path::new(corpus), mb(n)?),
        ["strategy", corpus] => strategy(Path::new(corpus), MB_DEFAULT),
        ["strategy", corpus, n] => strategy(Path::new(corpus), mb(n)?),
        ["window", corpus] => window(Path::new(corpus), MB_DEFAULT),
        ["window", corpus, n] => window(Path::new(corpus), mb(n)?),
        ["chunks", corpus] => chunks(Path::new(corpus)),
        ["packs", dir] => packs(Path::new(dir), 256),
        ["packs", dir, n] => packs(Path::new(dir), mb(n)?),
        _ => bail!(
            "usage: tuning compress CORPUS [MB] | strategy CORPUS [MB] | window CORPUS [MB] | chunks CORPUS | packs DIR [MB]"
        ),
    }
}

fn seconds(id: rustix::time::ClockId) -> f64 {
    let t = rustix::time::clock_gettime(id);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// Runs `work` and gives this thread's CPU seconds with its result.
fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let start = seconds(rustix::time::ClockId::ThreadCPUTime);
    let out = work()?;
    Ok((seconds(rustix::time::ClockId::ThreadCPUTime) - start, out))
}

/// The smallest CPU seconds of the repeats.
fn least<T>(mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let (mut best, mut out) = timed(&mut work)?;
    for _ in 1..REPEATS {
        let (seconds, again) = timed(&mut work)?;
        (best, out) = (best.min(seconds), again);
    }
    Ok((best, out))
}

/// Regular files below a folder, in the order of a sorted walk.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut names: Vec<_> = std::fs::read_dir(root)?.collect::<Result<_, _>>()?;
    names.sort_by_key(std::fs::DirEntry::file_name);
    let mut out = Vec::new();
    for entry in names {
        match entry.file_type()? {
            kind if kind.is_dir() => out.append(&mut files(&entry.path())?),
            kind if kind.is_file() => out.push(entry.path()),
            _ => {}
        }
    }
    Ok(out)
}

/// The first `mb` of a part, file after file: what segments hold when every chunk is new.
fn content(root: &Path, mb: usize) -> anyhow::Result<Vec<u8>> {
    let (mut out, most) = (Vec::new(), mb << 20);
    for path in files(root)? {
        if out.len() >= most {
            break;
        }
        std::fs::File::open(path)?.take((most - out.len()) as u64).read_to_end(&mut out)?;
    }
    Ok(out)
}

fn compress(corpus: &Path, mb: usize) -> anyhow::Result<()> {
    println!(
        "| part | segment KiB | level | MB | ratio | compress MB/s | decompress MB/s |\n|---|---|---|---|---|---|---|"
    );
    for part in PARTS.into_iter().filter(|part| corpus.join("live").join(part).is_dir()) {
        let data = content(&corpus.join("live").join(part), mb)?;
        for segment_kib in SEGMENT_KIB {
            for level in LEVELS {
                let measured = Measured::of(&data, segment_kib << 10, zstd::bulk::Compressor::new(level)?)?;
                println!("| {part} | {segment_kib} | {level} | {measured}");
            }
        }
    }
    Ok(())
}

/// What one setting does to one part.
struct Measured {
    mb: f64,
    ratio: f64,
    compress_seconds: f64,
    decompress_seconds: f64,
}

impl Measured {
    fn of(data: &[u8], segment: usize, mut encoder: zstd::bulk::Compressor<'_>) -> anyhow::Result<Self> {
        let mut decoder = zstd::bulk::Decompressor::new()?;
        let segments = || data.chunks(segment);
        let encode = || segments().map(|s| Ok(encoder.compress(s)?)).collect::<anyhow::Result<Vec<_>>>();
        let (compress_seconds, packed) = least(encode)?;
        let decode = || {
            let pairs = packed.iter().zip(segments());
            pairs.map(|(z, s)| Ok(decoder.decompress(z, s.len())?.len())).sum::<anyhow::Result<usize>>()
        };
        let (decompress_seconds, bytes) = least(decode)?;
        anyhow::ensure!(bytes == data.len(), "what came back has another length");
        let ratio = bytes as f64 / packed.iter().map(Vec::len).sum::<usize>() as f64;
        Ok(Self { mb: bytes as f64 / 1e6, ratio, compress_seconds, decompress_seconds })
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (into, back) = (self.mb / self.compress_seconds, self.mb / self.decompress_seconds);
        write!(f, "{:.1} | {:.3} | {into:.0} | {back:.0} |", self.mb, self.ratio)
    }
}

fn strategy(corpus: &Path, mb: usize) -> anyhow::Result<()> {
    println!("| part | strategy | hash bits | shortest match | MB | ratio | compress MB/s | decompress MB/s |");
    println!("|---|---|---|---|---|---|---|---|");
    let strategies = [(Strategy::ZSTD_fast, "fast"), (Strategy::ZSTD_dfast, "double fast")];
    for part in PARTS.into_iter().filter(|part| corpus.join("live").join(part).is_dir()) {
        let data = content(&corpus.join("live").join(part), mb)?;
        for (strategy, name) in strategies {
            for (hash_bits, shortest) in [14, 15, 16, 17, 18].into_iter().flat_map(|b| [5, 6, 7].map(|s| (b, s))) {
                let mut encoder = zstd::bulk::Compressor::new(2)?;
                encoder.set_parameter(CParameter::Strategy(strategy))?;
                encoder.set_parameter(CParameter::HashLog(hash_bits))?;
                encoder.set_parameter(CParameter::ChainLog(hash_bits - 1))?;
                encoder.set_parameter(CParameter::MinMatch(shortest))?;
                let measured = Measured::of(&data, SEGMENT_OF_STRATEGIES, encoder)?;
                println!("| {part} | {name} | {hash_bits} | {shortest} | {measured}");
            }
        }
    }
    Ok(())
}

fn window(corpus: &Path, mb: usize) -> anyhow::Result<()> {
    println!("| part | segment MiB | window bits | MB | ratio | compress MB/s | decompress MB/s |");
    println!("|---|---|---|---|---|---|---|");
    for part in PARTS.into_iter().filter(|part| corpus.join("live").join(part).is_dir()) {
        let data = content(&corpus.join("live").join(part), mb)?;
        for (segment_mib, window_bits) in [(1, 20), (2, 20), (2, 21), (3, 20), (3, 22), (4, 20), (4, 22)] {
            let mut encoder = zstd::bulk::Compressor::new(2)?;
            encoder.set_parameter(CParameter::HashLog(17))?;
            encoder.set_parameter(CParameter::MinMatch(7))?;
            encoder.set_parameter(CParameter::WindowLog(window_bits))?;
            let measured = Measured::of(&data, segment_mib << 20, encoder)?;
            println!("| {part} | {segment_mib} | {window_bits} | {measured}");
        }
    }
    Ok(())
}

/// A way to cut files.
#[derive(Clone, Copy)]
enum Cut {
    /// Pages of so many KiB.
    Fixed(usize),
    /// Content-defined, so many KiB on average, from half of it to twice of it.
    Content(usize),
}

impl Cut {
    fn pieces(self, data: &[u8]) -> Vec<&[u8]> {
        match self {
            Self::Fixed(kib) => data.chunks(kib << 10).collect(),
            Self::Content(kib) => {
                let average = kib << 10;
                let cuts = FastCDC::new(data, average / 2, average, average * 2);
                cuts.map(|c| &data[c.offset..c.offset + c.length]).collect()
            }
        }
    }
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(kib) => write!(f, "fixed {kib} KiB"),
            Self::Content(kib) => write!(f, "content {kib} KiB"),
        }
    }
}

fn chunks(corpus: &Path) -> anyhow::Result<()> {
    let fixed = [4, 8, 16, 32, 64].map(Cut::Fixed);
    let content = [16, 32, 64, 128, 256, 512].map(Cut::Content);
    println!(
        "| part | chunks | number day 1 | MB day 1 | new chunks day 2 | new MB | new MB compressed | cut and hash MB/s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for part in PARTS.into_iter().filter(|part| corpus.join("live").join(part).is_dir()) {
        let pages: &[Cut] = if part == "db" { &fixed } else { &[] };
        for &cut in pages.iter().chain(&content) {
            let mut known = HashSet::new();
            let (cpu_seconds, (read, kept)) = timed(|| take(&corpus.join("live").join(part), cut, &mut known))?;
            let day1 = known.len();
            let (_, (_, added)) = timed(|| take(&corpus.join("delta").join(part), cut, &mut known))?;
            let mut encoder = zstd::bulk::Compressor::new(LEVEL_OF_CHUNKS)?;
            let segments = added.chunks(SEGMENT_OF_CHUNKS).map(|s| Ok(encoder.compress(s)?.len()));
            let small = segments.sum::<anyhow::Result<usize>>()?;
            println!(
                "| {part} | {cut} | {day1} | {:.1} | {} | {:.2} | {:.2} | {:.0} |",
                kept.len() as f64 / 1e6,
                known.len() - day1,
                added.len() as f64 / 1e6,
                small as f64 / 1e6,
                read as f64 / 1e6 / cpu_seconds
            );
        }
    }
    Ok(())
}

/// Bytes read, and the pieces that were not known, one after the other.
fn take(root: &Path, cut: Cut, known: &mut HashSet<[u8; 32]>) -> anyhow::Result<(usize, Vec<u8>)> {
    let (mut read, mut new) = (0, Vec::new());
    for path in files(root)? {
        let data = std::fs::read(path)?;
        read += data.len();
        for piece in cut.pieces(&data) {
            if known.insert(*blake3::hash(piece).as_bytes()) {
                new.extend_from_slice(piece);
            }
        }
    }
    Ok((read, new))
}

/// As a folder store does it: a temporary name, fsync, rename; the folder is synced once at the end.
fn packs(dir: &Path, mb: usize) -> anyhow::Result<()> {
    println!("| pack KiB | threads | packs | wall s | MB/s |\n|---|---|---|---|---|");
    for kib in PACK_KIB {
        for threads in [1, 2, 4, 8] {
            let folder = dir.join(format!("packs-{kib}-{threads}"));
            std::fs::create_dir_all(&folder)?;
            let (count, taken) = ((mb << 10) / kib, AtomicUsize::new(0));
            let start = seconds(rustix::time::ClockId::Monotonic);
            std::thread::scope(|scope| {
                let work = || write_packs(&folder, kib << 10, count, &taken);
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                running.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a thread ended early"))?)
            })?;
            std::fs::File::open(&folder)?.sync_all()?;
            let wall = seconds(rustix::time::ClockId::Monotonic) - start;
            println!("| {kib} | {threads} | {count} | {wall:.2} | {:.0} |", mb as f64 * 1.048_576 / wall);
            std::fs::remove_dir_all(&folder)?;
        }
    }
    Ok(())
}

fn write_packs(folder: &Path, bytes: usize, count: usize, taken: &AtomicUsize) -> anyhow::Result<()> {
    let pack = vec![7; bytes];
    loop {
        let number = taken.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(());
        }
        let (temporary, name) = (folder.join(format!("{number}.new")), folder.join(format!("{number}")));
        let mut file = std::fs::File::create_new(&temporary)?;
        file.write_all(&pack)?;
        file.sync_data()?;
        std::fs::rename(temporary, name)?;
    }
}
