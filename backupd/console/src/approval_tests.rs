//! The owner's approval from enrolling a key to an entry in the log. The verifier here is a fake on the real wire with
//! the real log behind it; its fault is that it accepts any approval, so that what the console refuses shows.

use crate::audit;
use crate::channel_tests;
use crate::poll;
use crate::roles::Role;
use crate::testing::{Console, text};
use crate::web::Refusal;
use backup_report::{Approval, Decision, Log, Origin, OwnerRole, ReportSigner, evidence};
use backupd_api::{Connection, DrillVerdict, Event, EvidenceFile, Listener, ReportRow, Request, VerifierStatus};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::{Arc, Mutex};

/// A frozen report that passes.
const REPORT: &[u8] =
    include_bytes!("../../report/tests/vectors/restore-report-1/01912d68-783e-7a03-8467-000000000003.json");
const ID: &str = "01912d68-783e-7a03-8467-000000000003";

struct Verifier {
    log: Log,
    signer: ReportSigner,
    tampered: bool,
    /// The reports, where a test sets them.
    rows: Option<Vec<ReportRow>>,
}

impl Verifier {
    fn answer(&mut self, request: Request) -> Event {
        match request {
            Request::VerifierStatus => Event::VerifierStatus(VerifierStatus {
                key_fingerprint: self.signer.public_key().fingerprint().to_string(),
                log_size: self.log.size(),
                running: None,
                same_host_as_writer: true,
                next_drill_unix_ms: None,
                alerts: Vec::new(),
            }),
            Request::Reports => {
                Event::Reports { reports: self.rows.clone().unwrap_or_else(|| vec![row(self.log.size() > 1)]) }
            }
            Request::Evidence { .. } => Event::Evidence { files: self.evidence() },
            Request::Approve { approval, .. } => {
                self.log.append(&self.signer, &approval).unwrap();
                Event::Approved
            }
            other => panic!("{other:?}"),
        }
    }

    fn evidence(&self) -> Vec<EvidenceFile> {
        let signature = self.signer.sign(REPORT);
        let mut files = evidence(REPORT, &signature, &self.log, &self.signer.public_key()).unwrap();
        if self.tampered {
            files[0].1.swap(3, 4);
        }
        files.into_iter().map(|(name, bytes)| EvidenceFile { name, base64: STANDARD.encode(bytes) }).collect()
    }
}

fn row(approved: bool) -> ReportRow {
    ReportRow {
        id: ID.into(),
        store: "provider-north".into(),
        snapshot: "s1".into(),
        at_unix_ms: 1,
        verdict: DrillVerdict::Pass,
        source_damaged: false,
        nothing_sealed: false,
        rto_ms: Some(2_600),
        rpo_ms: Some(150_000),
        log_index: 0,
        approved,
    }
}

fn fake_verifier(console: &Console) -> Arc<Mutex<Verifier>> {
    let signer = ReportSigner::from_seed(&[9; 32]);
    let origin = Origin::parse("holdfast/log/test").unwrap();
    let mut log = Log::open(&console.folder.path().join("log"), origin, &signer).unwrap();
    log.append(&signer, REPORT).unwrap();
    let verifier = Arc::new(Mutex::new(Verifier { log, signer, tampered: false, rows: None }));
    let listener = Listener::bind_unix(&console.folder.path().join("verifier.sock")).unwrap();
    let shared = verifier.clone();
    tokio::spawn(async move {
        while let Ok(incoming) = listener.accept().await {
            let shared = shared.clone();
            tokio::spawn(async move { converse(incoming.greet().await.unwrap(), &shared).await });
        }
    });
    verifier
}

async fn converse(mut connection: Connection, verifier: &Mutex<Verifier>) {
    while let Ok(Some(request)) = connection.recv().await {
        let event = verifier.lock().unwrap().answer(request);
        connection.send(&event).await.unwrap();
    }
}

fn approval(key: &ReportSigner, role: OwnerRole) -> Vec<u8> {
    Approval::create(key, REPORT, Decision::Certified, role, 1_795_330_900_000).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_from_the_future_hides_no_later_drill() {
    let (url, beats, _) = channel_tests::web().await;
    let console = Console::new(&format!("heartbeat_url = \"{url}\"\n"));
    let verifier = fake_verifier(&console);
    let future = console.app.now_ms() + 172_800_000;
    let report = |index: u64, id: &str, at_unix_ms: i64, verdict| ReportRow {
        id: id.into(),
        at_unix_ms,
        verdict,
        log_index: index,
        ..row(false)
    };
    let rows = vec![
        report(0, "first", 1, DrillVerdict::Pass),
        report(1, "ahead", future, DrillVerdict::Pass),
        report(2, "failed", 2, DrillVerdict::Fail),
    ];
    verifier.lock().unwrap().rows = Some(rows);
    poll::verifier(&console.app).await.unwrap();
    let picture = console.app.pictures.now();
    let ids: Vec<&str> = picture.verifier.value().unwrap().reports.iter().map(|report| report.id.as_str()).collect();
    assert_eq!(ids, ["failed", "ahead", "first"]);
    let it = console.person("it", Role::PracticeIt).await;
    let page = text(console.get("/reports", Some(&it)).await).await;
    assert!(page.contains("2 days in the future"), "{page}");
    assert_eq!(beats.lock().unwrap().len(), 1, "the newest pass");
    verifier.lock().unwrap().rows.as_mut().unwrap().push(report(3, "again", 3, DrillVerdict::Pass));
    poll::verifier(&console.app).await.unwrap();
    poll::verifier(&console.app).await.unwrap();
    assert_eq!(beats.lock().unwrap().len(), 2, "a pass after the report from the future");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_with_the_enrolled_key_approves() {
    let console = Console::new("");
    let verifier = fake_verifier(&console);
    let (owner, it) = (console.person("owner", Role::Owner).await, console.person("it", Role::PracticeIt).await);
    let (key, other) = (ReportSigner::from_seed(&[1; 32]), ReportSigner::from_seed(&[2; 32]));
    let (path, good) = (format!("/reports/{ID}/approval"), approval(&key, OwnerRole::Owner));
    let size = || verifier.lock().unwrap().log.size();

    assert_eq!(console.upload(&it, &path, "approval", &good).await.status(), 403);
    assert_eq!(console.upload(&owner, &path, "approval", &good).await.status(), 422, "no key is enrolled");
    let pem = key.public_key().to_pem();
    assert_eq!(console.upload(&owner, "/approval-key", "key", b"nonsense").await.status(), 422);
    assert_eq!(console.upload(&it, "/approval-key", "key", pem.as_bytes()).await.status(), 403);
    assert_eq!(console.upload(&owner, "/approval-key", "key", pem.as_bytes()).await.status(), 303);
    let second = other.public_key().to_pem();
    assert_eq!(console.upload(&owner, "/approval-key", "key", second.as_bytes()).await.status(), 422, "once");
    for bad in [approval(&other, OwnerRole::Owner), approval(&key, OwnerRole::PracticeIt), b"{}".to_vec()] {
        assert_eq!(console.upload(&owner, &path, "approval", &bad).await.status(), 422);
    }
    assert_eq!(console.upload(&owner, "/reports/another/approval", "approval", &good).await.status(), 422);
    assert_eq!(size(), 1, "nothing that was refused reached the log");

    assert_eq!(console.upload(&owner, &path, "approval", &good).await.status(), 303);
    assert_eq!(size(), 2);
    let page = text(console.get(&format!("/reports/{ID}"), Some(&it)).await).await;
    assert!(
        page.contains("Approved") && page.contains("<strong>owner</strong>") && page.contains("certified"),
        "{page}"
    );
    assert_eq!(console.get(&format!("/reports/{ID}/evidence.tar"), Some(&it)).await.status(), 200, "with the approval");
    let own = text(console.get(&format!("/reports/{ID}"), Some(&owner)).await).await;
    assert!(!own.contains("Send the approval"), "it is done");
    let entries = console.app.db.read(|db| Ok::<_, Refusal>(audit::page(db, i64::MAX, 50)?)).unwrap();
    let approved = entries.iter().find(|entry| entry.act == "report-approved").unwrap();
    assert_eq!((approved.who.as_str(), approved.subject.as_str()), ("owner", ID));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_checked_when_it_is_shown_and_can_be_taken_away() {
    let console = Console::new("");
    let verifier = fake_verifier(&console);
    poll::verifier(&console.app).await.unwrap();
    let auditor = console.person("auditor", Role::Auditor).await;
    let path = format!("/reports/{ID}");
    let page = text(console.get(&path, Some(&auditor)).await).await;
    for words in ["Checked now", "Restore report: passed", "bash verify.sh", "entry <strong>0</strong> of the 1"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("<style") && !page.contains(" style="), "the content policy refuses inline style");
    let tar = console.get(&format!("{path}/evidence.tar"), Some(&auditor)).await;
    assert_eq!(tar.status(), 200);
    let bytes = axum::body::to_bytes(tar.into_body(), 1 << 20).await.unwrap();
    assert!(bytes.windows(REPORT.len()).any(|window| window == REPORT));
    let one = console.get(&format!("{path}/file/{ID}.json"), Some(&auditor)).await;
    assert_eq!(&axum::body::to_bytes(one.into_body(), 1 << 20).await.unwrap()[..], REPORT);
    assert_eq!(console.get(&format!("{path}/file/secret"), Some(&auditor)).await.status(), 404);
    verifier.lock().unwrap().tampered = true;
    let page = text(console.get(&path, Some(&auditor)).await).await;
    assert!(page.contains("Do not rely on this report") && !page.contains("Checked now"), "{page}");
}
