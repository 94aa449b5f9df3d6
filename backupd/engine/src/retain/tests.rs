use super::*;
use proptest::prelude::*;

const HOUR_MS: i64 = 3_600_000;

fn id(at: usize) -> SnapshotId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(at as u64).to_le_bytes());
    SnapshotId(bytes)
}

/// Snapshots of one source, newest first, at these hours before some day.
fn at_hours(hours: &[i64]) -> Vec<Candidate> {
    let one = |(at, hours): (usize, &i64)| Candidate {
        id: id(at),
        source: "emr".to_owned(),
        tag: None,
        partial: false,
        forked: false,
        received: Received { unix_ms: (20_780 * 24 - hours) * HOUR_MS, doubtful: false },
        proved_at: BTreeSet::new(),
    };
    hours.iter().enumerate().map(one).collect()
}

fn policy(rules: &[Keep]) -> Policy {
    Policy { rules: rules.iter().cloned().map(Rule::new).collect(), holds: Vec::new() }
}

fn kept(candidates: &[Candidate], policy: &Policy) -> Vec<usize> {
    let verdicts = decide(candidates, policy, &utc);
    verdicts.iter().enumerate().filter(|(_, verdict)| verdict.is_kept()).map(|(at, _)| at).collect()
}

#[test]
fn the_last_of_each_period_is_kept() {
    // Four of one day, two of the day before, one long ago.
    let candidates = at_hours(&[1, 2, 3, 20, 25, 30, 24 * 90]);
    assert_eq!(kept(&candidates, &policy(&[Keep::Last(2)])), [0, 1]);
    assert_eq!(kept(&candidates, &policy(&[Keep::Daily(2)])), [0, 4]);
    assert_eq!(kept(&candidates, &policy(&[Keep::Daily(9)])), [0, 4, 6], "periods without a snapshot do not count");
    assert_eq!(kept(&candidates, &policy(&[Keep::Hourly(3)])), [0, 1, 2]);
    assert_eq!(kept(&candidates, &policy(&[Keep::Within(3 * HOUR_MS as u64)])), [0, 1, 2]);
    assert_eq!(kept(&candidates, &policy(&[Keep::Last(1), Keep::Monthly(2)])), [0, 6]);
    assert_eq!(kept(&candidates, &policy(&[])), [0, 1, 2, 3, 4, 5, 6], "without a rule nothing goes");
}

#[test]
fn every_snapshot_says_why_it_is_kept() {
    let mut candidates = at_hours(&[1, 2, 3, 4, 5, 6]);
    candidates[2].tag = Some("before the move".to_owned());
    candidates[3].proved_at.insert("vault".to_owned());
    candidates[4].forked = true;
    let mut policy = policy(&[Keep::Last(1), Keep::Tagged("before the move".to_owned())]);
    policy.holds.push(Hold {
        scope: HoldScope::Snapshot(id(5)),
        reason: "matter-12".to_owned(),
        placed_by: "owner".to_owned(),
        placed_unix_ms: 0,
    });
    let reasons: Vec<Vec<Reason>> =
        decide(&candidates, &policy, &utc).into_iter().map(|verdict| verdict.reasons.into_iter().collect()).collect();
    assert_eq!(
        reasons,
        [
            vec![Reason::Rule(0), Reason::Newest],
            vec![],
            vec![Reason::Rule(1)],
            vec![Reason::Proved("vault".to_owned())],
            vec![Reason::Forked],
            vec![Reason::Hold("matter-12".to_owned())],
        ]
    );
    for scope in [HoldScope::Source("emr".to_owned()), HoldScope::Tag("before the move".to_owned())] {
        policy.holds[0].scope = scope;
        assert!(decide(&candidates, &policy, &utc)[2].reasons.contains(&Reason::Hold("matter-12".to_owned())));
    }
}

#[test]
fn a_partial_snapshot_takes_no_place_from_a_complete_one() {
    let mut candidates = at_hours(&[1, 2, 3, 30, 31]);
    for at in [0, 3] {
        candidates[at].partial = true;
    }
    let verdicts = decide(&candidates, &policy(&[Keep::Daily(2)]), &utc);
    assert!(verdicts[1].reasons.contains(&Reason::Rule(0)), "the newest complete one of its day");
    assert!(verdicts[4].reasons.contains(&Reason::Rule(0)));
    assert!(!verdicts[0].reasons.contains(&Reason::Rule(0)) && verdicts[0].reasons.contains(&Reason::Newest));
    assert_eq!(verdicts[3].reasons, BTreeSet::from([Reason::PartialRule(0)]));
    assert!(!verdicts[2].is_kept());
    // A file that can never be read makes every snapshot partial: they must not pile up for ever.
    candidates.iter_mut().for_each(|candidate| candidate.partial = true);
    assert_eq!(kept(&candidates, &policy(&[Keep::Last(2)])), [0, 1]);
}

#[test]
fn snapshots_of_doubtful_date_push_nothing_out() {
    let mut candidates = at_hours(&[-24 * 400, -24 * 300, 1, 2, 30]);
    for candidate in candidates.iter_mut().take(2) {
        candidate.received.doubtful = true;
    }
    let verdicts = decide(&candidates, &policy(&[Keep::Last(2), Keep::Within(2 * HOUR_MS as u64)]), &utc);
    assert!(verdicts[2].is_kept() && verdicts[3].is_kept() && !verdicts[4].is_kept());
    assert!(verdicts[1].reasons.contains(&Reason::DoubtfulDate));
}

#[test]
fn rules_and_holds_are_about_their_source() {
    let mut candidates = at_hours(&[1, 2, 3, 4]);
    for at in [1, 3] {
        candidates[at].source = "scans".to_owned();
    }
    let mut policy = policy(&[Keep::Last(1)]);
    assert_eq!(kept(&candidates, &policy), [0, 1], "each source by itself");
    policy.rules[0].source = Some("emr".to_owned());
    let verdicts = decide(&candidates, &policy, &utc);
    assert!(!verdicts[2].is_kept() && verdicts[3].reasons.contains(&Reason::NoRule));
}

fn keeps() -> impl Strategy<Value = Keep> {
    prop_oneof![
        (0u32..6).prop_map(Keep::Last),
        (0u32..6).prop_map(Keep::Hourly),
        (0u32..6).prop_map(Keep::Daily),
        (0u32..6).prop_map(Keep::Weekly),
        (0u32..6).prop_map(Keep::Monthly),
        (0u32..6).prop_map(Keep::Yearly),
        (0u64..400 * 24).prop_map(|hours| Keep::Within(hours * HOUR_MS as u64)),
        Just(Keep::Tagged("t".to_owned())),
    ]
}

/// Candidates in any order of dates, of two sources, some partial, forked, doubtful, tagged or proved.
fn histories() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (0i64..24 * 800, 0u8..64, any::<bool>());
    proptest::collection::vec(one, 1..60).prop_map(|rows| {
        let hours: Vec<i64> = rows.iter().map(|row| row.0).collect();
        let mut candidates = at_hours(&hours);
        for (candidate, (_, odd, other)) in candidates.iter_mut().zip(&rows) {
            candidate.partial = odd % 4 == 0;
            candidate.forked = *odd == 1;
            candidate.received.doubtful = *odd == 2;
            candidate.tag = (*odd == 3).then(|| "t".to_owned());
            if *odd == 5 {
                candidate.proved_at.insert("vault".to_owned());
            }
            if *other {
                candidate.source = "scans".to_owned();
            }
        }
        candidates
    })
}

/// A rule that keeps at least as much.
fn wider(keep: &Keep) -> Keep {
    match keep {
        Keep::Last(n) => Keep::Last(n + 1),
        Keep::Hourly(n) => Keep::Hourly(n + 1),
        Keep::Daily(n) => Keep::Daily(n + 1),
        Keep::Weekly(n) => Keep::Weekly(n + 1),
        Keep::Monthly(n) => Keep::Monthly(n + 1),
        Keep::Yearly(n) => Keep::Yearly(n + 1),
        Keep::Within(ms) => Keep::Within(ms + HOUR_MS as u64),
        Keep::Tagged(tag) => Keep::Tagged(tag.clone()),
    }
}

proptest! {
    #[test]
    fn more_rules_and_wider_rules_keep_no_less(
        candidates in histories(), rules in proptest::collection::vec(keeps(), 1..5), more in keeps()
    ) {
        let before: BTreeSet<usize> = kept(&candidates, &policy(&rules)).into_iter().collect();
        let further = [rules.clone(), vec![more]].concat();
        prop_assert!(before.is_subset(&kept(&candidates, &policy(&further)).into_iter().collect()));
        let wide: Vec<Keep> = rules.iter().map(wider).collect();
        prop_assert!(before.is_subset(&kept(&candidates, &policy(&wide)).into_iter().collect()));
    }

    #[test]
    fn what_must_stay_stays(candidates in histories(), rules in proptest::collection::vec(keeps(), 1..5)) {
        let verdicts = decide(&candidates, &policy(&rules), &utc);
        prop_assert_eq!(verdicts.len(), candidates.len());
        for source in ["emr", "scans"] {
            let mut mine = candidates.iter().zip(&verdicts).filter(|(candidate, _)| candidate.source == source);
            // Never empties a source, and never takes the newest complete one.
            if let Some((_, verdict)) = mine.clone().next() {
                prop_assert!(verdict.is_kept());
            }
            if let Some((_, verdict)) = mine.find(|(candidate, _)| !candidate.partial) {
                prop_assert!(verdict.is_kept());
            }
        }
        for (candidate, verdict) in candidates.iter().zip(&verdicts) {
            prop_assert!(candidate.proved_at.is_empty() || verdict.is_kept());
            // A partial one never counts for a rule.
            let by_rule = verdict.reasons.iter().any(|reason| matches!(reason, Reason::Rule(_)));
            prop_assert!(!(candidate.partial && by_rule));
        }
    }

    #[test]
    fn what_is_kept_once_is_kept_again(candidates in histories(), rules in proptest::collection::vec(keeps(), 1..5)) {
        let policy = policy(&rules);
        let left: Vec<Candidate> = kept(&candidates, &policy).into_iter().map(|at| candidates[at].clone()).collect();
        prop_assert_eq!(kept(&left, &policy).len(), left.len());
    }
}
