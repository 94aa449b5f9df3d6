//! Deletions from the plan to the owner's signed decision. Maintenance here is a fake on the real wire; its fault is that it
//! takes any decision, so that what the console refuses shows.

use crate::audit;
use crate::roles::Role;
use crate::testing::{Console, text};
use crate::web::Refusal;
use backup_report::{
    DeletionDecision, DeletionPlan, Digest, GoingSnapshot, Label, OpaqueId, PlanFigures, PlanSchema, PlanTrip,
    ReportId, ReportSigner, SignedDecision, TripWord,
};
use backupd_api::{
    Event, Listener, MaintainStatus, PruneApprover, PruneDecision, PrunePlan, PruneRow, PruneState, PruneStatus,
    Request,
};
use std::sync::{Arc, Mutex};

const PLAN: &str = "01912d68-783e-7a03-8467-0000000000aa";

fn document() -> String {
    let snapshot = OpaqueId::parse(&"ab".repeat(32)).unwrap();
    let source = Label::parse("emr").unwrap();
    let plan = DeletionPlan {
        schema: PlanSchema::V1,
        plan_id: ReportId::parse(PLAN).unwrap(),
        repository: OpaqueId::parse("00112233445566778899aabbccddeeff").unwrap(),
        made_unix_ms: 1_795_000_000_000,
        rules: Vec::new(),
        holds: Vec::new(),
        snapshots: 40,
        going: vec![GoingSnapshot {
            id: snapshot.clone(),
            source: source.clone(),
            taken_unix_ms: 1_794_000_000_000,
            received_unix_ms: 1_794_000_001_000,
        }],
        trips: vec![PlanTrip { kind: TripWord::MassRename, source, snapshot, before: 4000, after: 3900 }],
        grace_ms: 86_400_000,
        figures: PlanFigures {
            packs: 3,
            pack_bytes: 48 << 20,
            packs_rewritten: 1,
            rewritten_bytes: 5_000_000,
            indexes_merged: 2,
            bytes_freed: 120_000_000,
            puts: 9,
            gets: 8,
            lists: 6,
            deletes: 21,
            cost_millionths: 12_000,
            saved_millionths_per_month: 2_760,
        },
    };
    String::from_utf8(plan.to_bytes()).unwrap()
}

fn status(approver: &ReportSigner) -> PruneStatus {
    let row = |goes, reasons: &[&str]| PruneRow {
        id: if goes { "ab" } else { "cd" }.repeat(32),
        source: "emr".to_owned(),
        taken_unix_ms: 1_794_000_000_000,
        received_unix_ms: 1_794_000_001_000,
        goes,
        reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
    };
    let document = document();
    PruneStatus {
        now_unix_ms: 1_795_000_000_000,
        enabled: true,
        rules: vec!["daily 35 (adult, a statute)".to_owned()],
        holds: vec!["matter-7: source emr, ordered by Dr. O on 2026-11-02".to_owned()],
        approvers: vec![PruneApprover {
            name: "Oakley Owner".to_owned(),
            fingerprint: approver.public_key().fingerprint().to_string(),
        }],
        plan: Some(PrunePlan {
            id: PLAN.to_owned(),
            state: PruneState::Proposed,
            made_unix_ms: 1_795_000_000_000,
            sha256: Digest::sha256(document.as_bytes()).as_str().to_owned(),
            document,
            needed: 2,
            decisions: Vec::new(),
            rows: vec![row(true, &[]), row(false, &["daily 35", "proved of north"])],
            kept: 39,
            waiting: None,
            stores: Vec::new(),
            problem: None,
            notes: Vec::new(),
            recorded: false,
        }),
        next_plan_unix_ms: None,
    }
}

fn fake_maintenance(console: &Console, approver: &ReportSigner) -> Arc<Mutex<PruneStatus>> {
    let shared = Arc::new(Mutex::new(status(approver)));
    let listener = Listener::bind_unix(&console.folder.path().join("maintain.sock")).unwrap();
    let state = shared.clone();
    tokio::spawn(async move {
        while let Ok(incoming) = listener.accept().await {
            let Ok(mut connection) = incoming.greet().await else { continue };
            while let Ok(Some(request)) = connection.recv().await {
                let event = answer(&state, request);
                let _ = connection.send(&event).await;
            }
        }
    });
    shared
}

fn answer(state: &Mutex<PruneStatus>, request: Request) -> Event {
    let mut status = state.lock().unwrap();
    match request {
        Request::PruneDecide { decision } => {
            let signed = SignedDecision::parse(decision.as_bytes()).unwrap();
            status.plan.as_mut().unwrap().decisions.push(PruneDecision {
                approver: Some("Oakley Owner".to_owned()),
                fingerprint: signed.fingerprint().to_string(),
                approved: signed.decision() == DeletionDecision::Approved,
                signed_unix_ms: signed.signed_unix_ms(),
            });
        }
        Request::PruneStatus | Request::PrunePlan => {}
        Request::MaintainStatus => {
            return Event::MaintainStatus(MaintainStatus {
                now_unix_ms: 0,
                running: None,
                next_unix_ms: None,
                stores: Vec::new(),
                healed: Vec::new(),
                alerts: Vec::new(),
            });
        }
        other => panic!("{other:?}"),
    }
    Event::Prune(Box::new(status.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_owner_whose_key_maintenance_knows_decides() {
    let console = Console::new("maintain = \"unix:maintain.sock\"\n");
    let (key, other) = (ReportSigner::from_seed(&[1; 32]), ReportSigner::from_seed(&[2; 32]));
    let state = fake_maintenance(&console, &key);
    let (owner, it) = (console.person("owner", Role::Owner).await, console.person("it", Role::PracticeIt).await);
    let decision = |key: &ReportSigner| {
        SignedDecision::create(key, document().as_bytes(), DeletionDecision::Approved, 1_795_000_100_000).unwrap()
    };
    let (path, good) = ("/deletions/decision", decision(&key));
    let decided = || state.lock().unwrap().plan.as_ref().unwrap().decisions.len();

    let page = text(console.get("/deletions", Some(&owner)).await).await;
    for words in [
        "Waits for approval",
        "1 of 40 go",
        "This looks like an attack",
        "0 of 2",
        "enrol your key",
        "proved of north",
        "matter-7",
        "Too few",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert_eq!(console.upload(&owner, path, "decision", &good).await.status(), 422, "no key is enrolled");
    assert_eq!(console.upload(&it, path, "decision", &good).await.status(), 403);
    let pem = other.public_key().to_pem();
    assert_eq!(console.upload(&owner, "/approval-key", "key", pem.as_bytes()).await.status(), 303);
    let page = text(console.get("/deletions", Some(&owner)).await).await;
    assert!(page.contains("Not an approver") && page.contains("[[prune.approver]]"), "{page}");

    let second = console.person("oakley", Role::Owner).await;
    let pem = key.public_key().to_pem();
    assert_eq!(console.upload(&second, "/approval-key", "key", pem.as_bytes()).await.status(), 303);
    for bad in [decision(&other), b"{}".to_vec(), Vec::new()] {
        assert_eq!(console.upload(&second, path, "decision", &bad).await.status(), 422);
    }
    assert_eq!(decided(), 0, "nothing that was refused reached maintenance");
    let plan = console.get("/deletions/plan.json", Some(&second)).await;
    assert_eq!(text(plan).await, document(), "the exact text that is signed");
    assert_eq!(console.upload(&second, path, "decision", &good).await.status(), 303);
    assert_eq!(decided(), 1);
    let page = text(console.get("/deletions", Some(&second)).await).await;
    assert!(page.contains("1 of 2") && page.contains("A second, different person"), "{page}");
    let entries = console.app.db.read(|db| Ok::<_, Refusal>(audit::page(db, i64::MAX, 50)?)).unwrap();
    let noted = entries.iter().find(|entry| entry.act == "deletion-decided").unwrap();
    assert_eq!((noted.who.as_str(), noted.subject.as_str()), ("oakley", PLAN));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_reads_practice_it_plans_and_hands_in_the_data_center_see_nothing() {
    let console = Console::new("maintain = \"unix:maintain.sock\"\n");
    let _state = fake_maintenance(&console, &ReportSigner::from_seed(&[1; 32]));
    let (auditor, hands) =
        (console.person("auditor", Role::Auditor).await, console.person("hands", Role::DataCenter).await);
    let it = console.person("it", Role::PracticeIt).await;
    let page = text(console.get("/deletions", Some(&auditor)).await).await;
    assert!(page.contains("Waits for approval") && !page.contains("Make a new plan"), "{page}");
    assert_eq!(console.get("/deletions/plan.json", Some(&auditor)).await.status(), 200);
    assert_eq!(console.post("/deletions/plan", Some(&auditor), "").await.status(), 403);
    for path in ["/deletions", "/deletions/plan.json"] {
        assert_eq!(console.get(path, Some(&hands)).await.status(), 403);
    }
    assert_eq!(console.post("/deletions/plan", Some(&it), "").await.status(), 303);
    let mut page = String::new();
    for _ in 0..500 {
        page = text(console.get("/deletions", Some(&it)).await).await;
        if page.contains("would go") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(page.contains("1 snapshot would go") && !page.contains("Your decision"), "{page}");
}
