//! Every parser of the format on its test vectors, mutated at random: it answers and never panics. A second for each
//! target here; `HOLDFAST_FUZZ_SECONDS` gives more, `HOLDFAST_FUZZ_SEED` replays. Coverage-guided: tests/nightly.d/40-fuzz.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use targets::{FURTHER_VECTORS, TARGETS, Target, body};

/// What no repository holds, but a store answers; these need the engine, so they have no coverage-guided form.
const ANSWERS: &[Target] = &[("s3-answer", backup_engine::store::s3::reads)];

/// One of each kind of answer.
const S3_ANSWERS: [&str; 4] = [
    "<?xml version=\"1.0\"?><ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>true</IsTruncated>\
     <NextKeyMarker>a&amp;b%20c</NextKeyMarker><NextVersionIdMarker>v9</NextVersionIdMarker><EncodingType>url</EncodingType>\
     <Version><Key>a%26&#98;</Key><VersionId>v2</VersionId><IsLatest>false</IsLatest><LastModified>2026-11-25T22:54:14.250Z\
     </LastModified><Size>7</Size></Version><DeleteMarker><Key>a</Key><VersionId>v1</VersionId><IsLatest>true</IsLatest>\
     <LastModified>2026-11-25T22:54:15Z</LastModified></DeleteMarker></ListVersionsResult>",
    "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2026-11-25T22:54:14Z</RetainUntilDate></Retention>",
    "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode>\
     <Years>2</Years></DefaultRetention></Rule></ObjectLockConfiguration>",
    "<Error><Code>NoSuchKey</Code><Message><![CDATA[gone]]><!-- for good --></Message></Error>",
];

/// What was taken joins the corpus, up to so many.
const TAKEN_MAX: usize = 256;
const INPUT_BYTES_MAX: usize = 1 << 17;

/// A stream of numbers from a seed.
struct Numbers(blake3::OutputReader);

impl Numbers {
    fn of(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes);
        bytes
    }
}

/// Numbers at which parsers tend to be wrong, as fixed fields and as varints.
const EDGES: &[&[u8]] = &[
    &[0],
    &[1],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0x80, 0],
    &[0x80, 1],
    &[0xff, 0xff, 3],
    &[0x80, 0x80, 0x80, 8],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x1f],
    &[0xff; 4],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
    b"../",
    b"HFpk\0\x01",
];

fn mutate(numbers: &mut Numbers, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[numbers.below(corpus.len())].clone();
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(input.len() + 1);
        let len = numbers.below((input.len() - at).min(64) + 1);
        match numbers.below(9) {
            0 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            1 if at < input.len() => input[at] = numbers.bytes(1)[0],
            2 => input.truncate(at),
            3 => drop(input.drain(at..at + len)),
            4 => {
                let more = numbers.bytes(len);
                drop(input.splice(at..at, more));
            }
            5 => {
                let again = input[at..at + len].to_vec();
                drop(input.splice(at..at, again));
            }
            6 => {
                let other = &corpus[numbers.below(corpus.len())];
                let from = numbers.below(other.len() + 1);
                drop(input.splice(at.., other[from..].iter().copied()));
            }
            7 => {
                let edge = EDGES[numbers.below(EDGES.len())];
                drop(input.splice(at..at, edge.iter().copied()));
            }
            _ => {
                let edge = EDGES[numbers.below(EDGES.len())];
                let end = (at + edge.len()).min(input.len());
                drop(input.splice(at..end, edge.iter().copied()));
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// The vectors of a target, and for segments a frame with its length in front.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = holdfast_tests::root().join("backupd/format/vectors");
    let further = FURTHER_VECTORS.iter().find(|(name, _)| *name == target).map_or(&[][..], |(_, more)| more);
    let vectors: Vec<Vec<u8>> = std::iter::once(&target)
        .chain(further)
        .filter_map(|name| std::fs::read_to_string(folder.join(format!("{name}.txt"))).ok())
        .map(|vector| body(&vector))
        .collect();
    match target {
        "segment" => {
            let plain = b"a chunk of a file, ".repeat(40);
            let frame = zstd::bulk::compress(&plain, 3).unwrap();
            vec![[&(plain.len() as u16).to_le_bytes()[..], &frame].concat()]
        }
        "s3-answer" => S3_ANSWERS.iter().map(|answer| answer.as_bytes().to_vec()).collect(),
        "ids" => vec![b"00".repeat(16), b"0f".repeat(32)],
        _ => vectors,
    }
}

/// How long a run goes on is not asserted; only that it ends.
#[expect(clippy::disallowed_methods, reason = "a time budget, not a measurement")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// A seed that differs from run to run; a failure prints it.
#[expect(clippy::disallowed_methods, reason = "only a seed")]
fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn run((name, target): Target, seed: u64, time: Duration) -> u64 {
    let mut corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has a vector");
    let whole = corpus.len();
    let mut numbers = Numbers::of(seed);
    let until = now() + time;
    let mut inputs = 0u64;
    while !inputs.is_multiple_of(64) || now() < until {
        let input = mutate(&mut numbers, &corpus);
        let answered = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let Ok(taken) = answered else {
            let hex = input.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            panic!("target {name} panicked: HOLDFAST_FUZZ_SEED={seed}, input number {inputs}: {hex}");
        };
        if taken && corpus.len() < whole + TAKEN_MAX {
            corpus.push(input);
        }
        inputs += 1;
    }
    inputs
}

#[test]
fn no_parser_panics_on_mutated_vectors() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = variable("HOLDFAST_FUZZ_SECONDS").unwrap_or(1);
    let seed = variable("HOLDFAST_FUZZ_SEED").unwrap_or_else(fresh_seed);
    let lanes = std::thread::available_parallelism().map_or(2, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let targets = [TARGETS, ANSWERS].concat();
    let counts = std::sync::Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst)) {
                    let inputs = run(*target, seed, Duration::from_secs(seconds));
                    counts.lock().unwrap().insert(target.0, inputs);
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    println!("seed {seed}, {seconds} s each: {counts:?}");
    assert_eq!(counts.len(), targets.len());
}

#[test]
fn every_kind_of_vector_has_a_target() {
    let folder = holdfast_tests::root().join("backupd/format/vectors");
    let all: Vec<&str> = TARGETS
        .iter()
        .map(|(name, _)| *name)
        .chain(FURTHER_VECTORS.iter().flat_map(|(_, more)| more.iter().copied()))
        .collect();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let kind = text.lines().find_map(|line| line.strip_prefix("kind: ")).unwrap();
        assert!(all.contains(&kind), "{kind}");
    }
}
