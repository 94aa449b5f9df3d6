//! The evidence bundle under its verifiers: ours, and stock bash with openssl.

mod sample;

use backup_report::*;
use sample::{Dice, origin, report, signer};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const OWNER_SEED: [u8; 32] = [77; 32];

struct Made {
    dir: TempDir,
    id: String,
    fingerprint: String,
}

impl Made {
    fn path(&self, ext: &str) -> PathBuf {
        self.dir.path().join(format!("{}.{ext}", self.id))
    }

    fn bundle(&self) -> Bundle {
        let read = |ext: &str| fs::read(self.path(ext)).unwrap();
        Bundle {
            report: read("json"),
            signature: read("sig"),
            public_key: read("pub"),
            proof: read("proof"),
            approvals: vec![(read("approval-1.json"), Some(read("approval-1.proof")))],
        }
    }
}

/// The bundle of report `nth` of a log of `reports`, with an owner's approval appended after them.
fn made(reports: u32, nth: u32) -> Made {
    let signer = signer();
    let dir = TempDir::new().unwrap();
    let mut log = Log::open(&dir.path().join("log"), origin(), &signer).unwrap();
    for n in 0..reports {
        log.append(&signer, &report(n).to_bytes()).unwrap();
    }
    let bytes = report(nth).to_bytes();
    let owner = ReportSigner::from_seed(&OWNER_SEED);
    let approval = Approval::create(&owner, &bytes, Decision::Certified, OwnerRole::Owner, 1_795_330_999_000).unwrap();
    log.append(&signer, &approval).unwrap();
    for (name, file) in evidence(&bytes, &signer.sign(&bytes), &log, &signer.public_key()).unwrap() {
        fs::write(dir.path().join(name), file).unwrap();
    }
    let fingerprint = signer.public_key().fingerprint().to_string();
    Made { dir, id: report(nth).report_id.to_string(), fingerprint }
}

/// Exit code and output of the shipped script under the machine's own bash and openssl.
fn script(made: &Made, report: &Path, more: &[&str]) -> (i32, String) {
    let out = Command::new("bash").arg(made.dir.path().join("verify.sh")).arg(report).args(more).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap(), text)
}

fn program(args: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_report-verify")).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap(), text)
}

#[test]
fn a_sound_bundle_is_verified_only_with_the_fingerprint_known_from_elsewhere() {
    let made = made(5, 3);
    let known: Fingerprint = made.fingerprint.parse().unwrap();
    let other = ReportSigner::from_seed(&[1; 32]).public_key().fingerprint().to_string();
    assert_eq!(verify(&made.bundle(), Some(known)).unwrap().outcome, Outcome::Verified);
    assert_eq!(verify(&made.bundle(), None).unwrap().outcome, Outcome::SignerUnknown);
    assert_eq!(verify(&made.bundle(), Some(other.parse().unwrap())).unwrap().outcome, Outcome::SignerUnknown);

    let file = made.path("json");
    let file_text = file.to_str().unwrap();
    for (fingerprint, code, word) in [
        (Some(made.fingerprint.as_str()), 0, "VERIFIED"),
        (None, 2, "SIGNER UNKNOWN"),
        (Some(&other), 2, "SIGNER UNKNOWN"),
    ] {
        let flag: Vec<&str> = fingerprint.map(|f| vec!["--key-fingerprint", f]).unwrap_or_default();
        let (got, text) = script(&made, &file, &flag);
        assert_eq!(got, code, "{text}");
        assert!(text.contains(word) && text.contains(&made.fingerprint) && text.contains("entry 3 of 6"), "{text}");
        let (got, text) = program(&[&[file_text], flag.as_slice()].concat());
        assert_eq!(got, code, "{text}");
        assert!(text.contains(word) && text.contains("verdict    pass") && text.contains("certified by key"), "{text}");
    }
}

#[test]
fn one_report_at_a_time_is_checked() {
    let made = made(2, 1);
    let report = made.path("json");
    let more = [report.to_str().unwrap(), "--key-fingerprint", &made.fingerprint];
    assert_eq!(script(&made, &report, &more).0, 64);
    assert_eq!(program(&[&[more[0]], &more[..]].concat()).0, 64);
}

#[test]
fn a_report_under_the_name_of_another_is_wrong() {
    let made = made(2, 1);
    let other = report(0).report_id.to_string();
    for (named, code) in [(other.as_str(), 1), ("the-one-of-march", 2)] {
        for end in ["json", "sig", "pub", "proof"] {
            fs::copy(made.path(end), made.dir.path().join(format!("{named}.{end}"))).unwrap();
        }
        let file = made.dir.path().join(format!("{named}.json"));
        for (got, text) in [script(&made, &file, &[]), program(&[file.to_str().unwrap()])] {
            assert_eq!(got, code, "{text}");
            assert!(text.contains(&made.id), "{text}");
        }
    }
}

#[test]
fn the_script_agrees_for_every_entry_of_logs_of_every_small_size() {
    for size in 1..=9u32 {
        for nth in 0..size {
            let made = made(size, nth);
            let upper = made.fingerprint.to_uppercase().replace('-', ":");
            let (code, text) = script(&made, &made.path("json"), &["--key-fingerprint", &upper]);
            assert_eq!(code, 0, "entry {nth} of {size}: {text}");
        }
    }
}

#[test]
fn stock_openssl_verifies_signature_fingerprint_and_approval() {
    let made = made(3, 1);
    let run = |command: &str| {
        let out = Command::new("bash").args(["-c", command]).current_dir(made.dir.path()).output().unwrap();
        assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let id = &made.id;
    run(&format!("openssl pkeyutl -verify -rawin -pubin -inkey {id}.pub -in {id}.json -sigfile {id}.sig"));
    let stem = format!("{id}.approval-1");
    run(&format!("openssl pkeyutl -verify -rawin -pubin -inkey {stem}.pub -in {stem}.statement -sigfile {stem}.sig"));
    let hash = run(&format!("openssl pkey -pubin -in {id}.pub -outform DER | sha256sum | cut -c1-64"));
    assert_eq!(hash.trim(), made.fingerprint.replace('-', ""));
    let same = run(&format!("openssl pkey -pubin -in {id}.pub -pubout"));
    assert_eq!(same.as_bytes(), fs::read(made.path("pub")).unwrap(), "our PEM is openssl's");
    let sha = run(&format!("sha256sum {id}.json | cut -c1-64"));
    assert!(fs::read_to_string(made.path("approval-1.statement")).unwrap().contains(sha.trim()));
}

#[test]
fn every_flipped_bit_is_refused() {
    let made = made(5, 3);
    let good = made.bundle();
    let known = Some(made.fingerprint.parse().unwrap());
    assert!(verify(&good, known).is_ok());
    type Part = fn(&mut Bundle) -> &mut Vec<u8>;
    let parts: [(&str, Part); 5] = [
        ("report", |b| &mut b.report),
        ("signature", |b| &mut b.signature),
        ("proof", |b| &mut b.proof),
        ("approval", |b| &mut b.approvals[0].0),
        ("approval's proof", |b| b.approvals[0].1.as_mut().unwrap()),
    ];
    for (name, part) in parts {
        let mut bent = good.clone();
        for at in 0..part(&mut bent).len() {
            for bit in 0..8 {
                part(&mut bent)[at] ^= 1 << bit;
                assert!(verify(&bent, known).is_err(), "{name}, byte {at}, bit {bit}");
                part(&mut bent)[at] ^= 1 << bit;
            }
        }
        assert_eq!(bent.report, good.report);
        for cut in [0, 1, part(&mut bent).len() - 1] {
            let mut bent = good.clone();
            part(&mut bent).truncate(cut);
            assert!(verify(&bent, known).is_err(), "{name} cut at {cut}");
        }
    }
    // A changed key file is unreadable, or another key: then the signature does not fit it.
    for at in 0..good.public_key.len() {
        for bit in 0..8 {
            let mut bent = good.clone();
            bent.public_key[at] ^= 1 << bit;
            let same_key = PublicKey::from_pem(&bent.public_key).is_ok_and(|k| k == signer().public_key());
            assert!(same_key || verify(&bent, known).is_err(), "key, byte {at}, bit {bit}");
        }
    }
}

#[test]
fn the_script_refuses_flipped_bytes() {
    let made = made(5, 3);
    let mut dice = Dice(0x5eed_0002);
    let known = ["--key-fingerprint", &made.fingerprint];
    for ext in ["json", "sig", "proof", "pub"] {
        let good = fs::read(made.path(ext)).unwrap();
        // All of a small sample, so that each line of the proof is hit several times.
        for _ in 0..40 {
            let mut bent = good.clone();
            let at = (dice.roll() % bent.len() as u64) as usize;
            bent[at] ^= 1 << (dice.roll() % 8);
            fs::write(made.path(ext), &bent).unwrap();
            let (code, text) = script(&made, &made.path("json"), &known);
            let same_key = ext == "pub" && (code == 0) && bent.len() == good.len();
            assert!(code == 1 || (same_key && spaces_only(&bent, &good)), "{ext}, byte {at}: {code} {text}");
        }
        for cut in [0, good.len() / 2, good.len() - 1] {
            fs::write(made.path(ext), &good[..cut]).unwrap();
            let (code, text) = script(&made, &made.path("json"), &known);
            assert!(code == 1 || (ext == "pub" && cut == good.len() - 1), "{ext} cut at {cut}: {code} {text}");
        }
        fs::write(made.path(ext), &good).unwrap();
    }
    fs::remove_file(made.path("proof")).unwrap();
    assert_eq!(script(&made, &made.path("json"), &known).0, 1);
    assert_eq!(script(&made, &made.path("json"), &["--key-fingerprint"]).0, 64);
    assert_eq!(script(&made, &made.path("json"), &["--nonsense"]).0, 64);
}

/// Openssl reads a PEM file generously: what it passed must still be the same key.
fn spaces_only(bent: &[u8], good: &[u8]) -> bool {
    let letters = |b: &[u8]| b.iter().filter(|c| c.is_ascii_alphanumeric() || **c == b'+' || **c == b'/').count();
    letters(bent).abs_diff(letters(good)) <= 1
}

#[test]
fn proofs_of_other_reports_keys_and_logs_are_refused() {
    let (a, b) = (made(5, 3), made(5, 4));
    let known = Some(a.fingerprint.parse().unwrap());
    let swapped = Bundle { proof: b.bundle().proof, ..a.bundle() };
    assert!(matches!(verify(&swapped, known), Err(VerifyError::Proof(ProofError::NotIncluded))));
    let swapped = Bundle { approvals: b.bundle().approvals, ..a.bundle() };
    assert!(matches!(verify(&swapped, known), Err(VerifyError::Approval(1, ApprovalError::OtherReport))));
    fs::write(a.path("proof"), b.bundle().proof).unwrap();
    assert_eq!(script(&a, &a.path("json"), &["--key-fingerprint", &a.fingerprint]).0, 1);

    // Signed with the right words by a wrong key: valid in itself, but not by the signer one knows.
    let forger = ReportSigner::from_seed(&[13; 32]);
    let dir = TempDir::new().unwrap();
    let mut log = Log::open(dir.path(), origin(), &forger).unwrap();
    let bytes = report(1).to_bytes();
    log.append(&forger, &bytes).unwrap();
    let forged = Bundle {
        report: bytes.clone(),
        signature: forger.sign(&bytes).to_vec(),
        public_key: forger.public_key().to_pem().into_bytes(),
        proof: log.inclusion_proof(0).unwrap().to_bytes(),
        approvals: Vec::new(),
    };
    assert_eq!(verify(&forged, known).unwrap().outcome, Outcome::SignerUnknown);
    let mixed = Bundle { public_key: signer().public_key().to_pem().into_bytes(), ..forged };
    assert!(matches!(verify(&mixed, known), Err(VerifyError::Signature(KeyError::WrongSignature))));
}

#[test]
fn a_signed_report_with_a_forged_verdict_is_refused() {
    let mut forged = report(9);
    forged.facts[0].equal = false;
    assert_eq!(forged.verdict, Verdict::Pass);
    let bytes = forged.to_bytes();
    let dir = TempDir::new().unwrap();
    let mut log = Log::open(dir.path(), origin(), &signer()).unwrap();
    assert!(matches!(log.append(&signer(), &bytes), Err(LogError::Entry(EntryError::Report(_)))));
    assert_eq!(log.size(), 0);
    let head = Checkpoint { origin: origin(), size: 1, root: leaf_hash(&bytes) };
    let bundle = Bundle {
        signature: signer().sign(&bytes).to_vec(),
        public_key: signer().public_key().to_pem().into_bytes(),
        proof: Proof { index: 0, path: Vec::new(), checkpoint: head.sign(&signer()) }.to_bytes(),
        report: bytes,
        approvals: Vec::new(),
    };
    let expected = ReportError::VerdictForged { stated: Verdict::Pass, recomputed: Verdict::Fail };
    assert_eq!(verify(&bundle, None), Err(VerifyError::Report(expected)));
}

#[test]
fn an_approval_is_by_a_second_person_and_about_a_sound_report() {
    let bytes = report(1).to_bytes();
    let own = Approval::create(&signer(), &bytes, Decision::Certified, OwnerRole::Owner, 1).unwrap();
    assert_eq!(Approval::check(&own, &bytes, &signer().public_key()), Err(ApprovalError::SamePerson));
    let mut forged = report(1);
    forged.facts[0].equal = false;
    let owner = ReportSigner::from_seed(&OWNER_SEED);
    let refused = Approval::create(&owner, &forged.to_bytes(), Decision::Certified, OwnerRole::Owner, 1);
    assert!(matches!(refused, Err(ApprovalError::Report(_))));
}

#[test]
fn a_person_approves_with_a_key_that_openssl_made() {
    let made = made(3, 1);
    let at = |name: &str| made.dir.path().join(name).to_str().unwrap().to_owned();
    let key = at("owner.pem");
    let out = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out", &key]).output().unwrap();
    assert!(out.status.success());
    let report = made.path("json").to_str().unwrap().to_owned();
    let second = made.path("approval-2.json").to_str().unwrap().to_owned();
    let (code, text) = program(&["approve", &report, "--key", &key, "--decision", "rejected", "--out", &second]);
    assert_eq!(code, 0, "{text}");
    let (code, owner) = program(&["fingerprint", &key]);
    assert_eq!(code, 0, "{owner}");
    let known = ["--key-fingerprint", made.fingerprint.as_str()];
    let (code, text) = program(&[&[report.as_str()], &known[..], &["--approver-fingerprint", owner.trim()]].concat());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("REJECTED by key") && text.contains("the key you named"), "{text}");
    assert!(text.contains("not proved to be in the log"), "{text}");
    let nobody = ReportSigner::from_seed(&[99; 32]).public_key().fingerprint().to_string();
    let (code, _) = program(&[&[report.as_str()], &known[..], &["--approver-fingerprint", &nobody]].concat());
    assert_eq!(code, 1);
    assert_eq!(program(&["--nonsense"]).0, 64);
    assert_eq!(program(&[&at("absent.json")]).0, 1);
}

/// Two stores' logs as an auditor fetches them.
#[test]
fn whole_logs_are_checked_and_compared() {
    let dir = TempDir::new().unwrap();
    let folder = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let fill = |name: &str, numbers: &[u32]| {
        let mut log = Log::open(Path::new(&folder(name)), origin(), &signer()).unwrap();
        for n in numbers {
            log.append(&signer(), &report(*n).to_bytes()).unwrap();
        }
    };
    fill("a", &[1, 2, 3]);
    fill("b", &[1, 2]);
    fill("fork", &[1, 9]);
    let key = folder("key.pub");
    fs::write(&key, signer().public_key().to_pem()).unwrap();
    let origin = origin();
    let fingerprint = signer().public_key().fingerprint().to_string();
    let check = |folders: [&str; 2], more: &[&str]| {
        let folders = folders.map(folder);
        program(&[&["log", &folders[0], &folders[1], "--pub", &key, "--origin", origin.as_str()], more].concat())
    };
    let (code, text) = check(["a", "b"], &["--key-fingerprint", &fingerprint]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("3 reports, 0 approvals") && text.contains("VERIFIED"), "{text}");
    assert_eq!(check(["a", "b"], &[]).0, 2);
    let (code, text) = check(["a", "fork"], &["--key-fingerprint", &fingerprint]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("another history at 2 entries"), "{text}");
}

/// Evidence outlives the code: these files were made once and stay. If a change breaks this, it is a new version of the
/// format, not a new set of files.
#[test]
fn the_frozen_bundle_still_verifies_and_is_still_made_alike() {
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/restore-report-1");
    let made = made(5, 3);
    for ext in ["json", "sig", "pub", "proof", "approval-1.json", "approval-1.proof"] {
        let kept = fs::read(frozen.join(format!("{}.{ext}", made.id))).unwrap();
        assert!(fs::read(made.path(ext)).unwrap() == kept, "{ext} is made otherwise than it was");
    }
    let report = frozen.join(format!("{}.json", made.id));
    let (code, text) = script(&made, &report, &["--key-fingerprint", &made.fingerprint]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = program(&[report.to_str().unwrap(), "--key-fingerprint", &made.fingerprint]);
    assert_eq!(code, 0, "{text}");
}
