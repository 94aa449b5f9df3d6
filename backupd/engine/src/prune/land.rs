//! How things stand: what every store lists, which heads there are, what is being deleted already.

use super::given_up::unfollowed;
use super::mark::Mark;
use super::{GivenUp, PruneRequest, Retire};
use crate::condemned::Condemned;
use crate::error::{Error, ErrorKind, Result};
use crate::gaps::Gap;
use crate::heads::{SnapshotInfo, heads_everywhere};
use crate::read::Reader;
use crate::retain::{Candidate, Reason, Received, Verdict, decide, received};
use crate::store::NamedStore;
use crate::survey::{HEADS, View, snapshot_name, views};
use backup_format::condemned::{ChainMark, CondemnedHead, PLAN_HEADS_MAX, PlanName};
use backup_format::head::HeadName;
use backup_format::tombstone::TombstoneReason;
use backup_format::{IncarnationId, OpenKey, SnapshotId, SourceId};
use std::collections::{BTreeMap, BTreeSet};

/// What was listed and read.
pub(super) struct Land {
    pub(super) views: Vec<View>,
    pub(super) condemned: Condemned,
    /// Newest first.
    pub(super) snapshots: Vec<(SnapshotInfo, Verdict)>,
    pub(super) late: Vec<SnapshotInfo>,
    pub(super) going: Vec<SnapshotInfo>,
    /// What no store has any more and people have given up: it goes.
    lost: Vec<SnapshotInfo>,
    /// Of these, those whose head or own object is lost: nothing is known of what they reach.
    unread: BTreeSet<SnapshotId>,
    pub(super) gaps: Vec<Gap>,
    /// When each snapshot came; filled by [`Land::decide`].
    pub(super) received: BTreeMap<SnapshotId, Received>,
    /// The dates that stores give to heads.
    dates: BTreeMap<String, Vec<i64>>,
}

impl Land {
    /// Reads every store. One that does not answer may hold a head that reaches what would be deleted.
    pub(super) async fn read(open: &OpenKey, stores: &[NamedStore], given_up: &GivenUp) -> Result<Self> {
        let views = views(stores, "").await;
        for (store, view) in stores.iter().zip(&views) {
            if let Err(error) = &view.listing {
                let message = "every store must answer before anything is deleted";
                return Err(error.duplicate().context(format!("{}: {message}", store.name)));
            }
        }
        let condemned = Condemned::read(open.catalog(), stores, &views, None).await;
        condemned.require_all(|name| given_up.has(name))?;
        let heads = heads_everywhere(open, stores, &condemned).await?;
        let dates = head_dates(stores).await?;
        let read: BTreeSet<HeadName> =
            heads.snapshots.iter().chain(&heads.uncommitted).chain(&heads.going).map(|info| info.head).collect();
        let listed = views.iter().filter_map(View::objects).flat_map(BTreeMap::keys).filter(|n| n.starts_with(HEADS));
        let mut lost = Vec::new();
        for name in listed.collect::<BTreeSet<_>>() {
            let head = name.parse::<HeadName>().ok();
            // One that the newest order takes out may have lost its snapshot already, where a lock kept the head.
            if head.is_some_and(|head| read.contains(&head) || condemned.takes_out(&head)) {
                continue;
            }
            let came = dates.get(name).and_then(|dates| dates.iter().min().copied());
            let lost_snapshot = match head {
                Some(head) => given_up.lost_snapshot((open.catalog(), stores), head, &heads.snapshots, came).await?,
                None => None,
            };
            // What it reaches is not known. One that was put since the listing of heads is read next time.
            lost.push(lost_snapshot.ok_or_else(|| unreadable(name))?);
        }
        let unjudged = |info: SnapshotInfo| {
            let verdict = Verdict { id: info.id, reasons: BTreeSet::from([Reason::NoRule]) };
            (info, verdict)
        };
        let snapshots = heads.snapshots.into_iter().map(unjudged).collect();
        let received = BTreeMap::new();
        Ok(Self {
            views,
            condemned,
            snapshots,
            late: heads.uncommitted,
            gaps: heads.gaps,
            going: heads.going,
            unread: lost.iter().map(|info| info.id).collect(),
            lost,
            received,
            dates,
        })
    }

    /// Judges every snapshot by the rules.
    pub(super) fn decide(&mut self, request: &PruneRequest<'_>) {
        let candidate = |info: &SnapshotInfo| {
            let mut candidate = Candidate::of(info);
            let dates = self.dates.get(&info.head.to_string()).filter(|_| request.store_dates);
            let first_seen = request.first_seen.get(&info.id).copied();
            candidate.received = received(info.taken_unix_ms, first_seen, dates.map(Vec::as_slice).unwrap_or_default());
            let proved = request.proved.iter().filter(|(_, id)| **id == info.id);
            candidate.proved_at = proved.map(|(store, _)| store.clone()).collect();
            candidate
        };
        let candidates: Vec<Candidate> = self.snapshots.iter().map(|(info, _)| candidate(info)).collect();
        self.received = candidates.iter().map(|candidate| (candidate.id, candidate.received)).collect();
        let verdicts = decide(&candidates, &request.policy, request.zone);
        for ((_, verdict), judged) in self.snapshots.iter_mut().zip(verdicts) {
            *verdict = judged;
        }
        // One plan has room for so many; the oldest go first.
        let over =
            self.snapshots.iter().filter(|(_, verdict)| !verdict.is_kept()).count().saturating_sub(PLAN_HEADS_MAX / 2);
        for (_, verdict) in self.snapshots.iter_mut().filter(|(_, verdict)| !verdict.is_kept()).take(over) {
            verdict.reasons.insert(Reason::NextPlan);
        }
        let lost = self.lost.iter().map(|info| (info.clone(), Verdict { id: info.id, reasons: BTreeSet::new() }));
        self.snapshots.extend(lost);
    }

    /// Index objects that no store gives back whole. Of one that is being taken out a listing may be older than its deletion.
    pub(super) fn bad_indexes<'r>(&self, reader: &'r Reader<'_>) -> impl Iterator<Item = &'r String> {
        let going = self.condemned.going();
        reader.bad_indexes.iter().filter(move |bad| !going.contains(*bad))
    }

    /// Of what would stay, what has lost part of its tree and is given up goes. Whatever else cannot be read ends it.
    pub(super) async fn give_up(&mut self, reader: &Reader<'_>, given_up: &GivenUp) -> Result<()> {
        if let Some(bad) = self.bad_indexes(reader).find(|bad| !given_up.has(bad)) {
            return Err(Error::new(ErrorKind::Damaged, format!("{bad} cannot be read: heal it before pruning")));
        }
        let asked: Vec<&SnapshotInfo> = self.kept().into_iter().filter(|info| given_up.has_snapshot(info.id)).collect();
        if asked.is_empty() || *given_up == GivenUp::All && Mark::of(reader, &asked).await.is_ok() {
            return Ok(());
        }
        let lost = unfollowed(reader, &asked).await?;
        for (info, verdict) in self.snapshots.iter_mut().filter(|(info, _)| lost.contains(&info.id)) {
            verdict.reasons.clear();
            self.lost.push(info.clone());
        }
        Ok(())
    }

    /// A snapshot that stays though nobody knows what it reaches: it was given up after the plan was approved, or by a person alone.
    pub(super) fn stays_unread(&self) -> Option<SnapshotId> {
        let stays = |(info, verdict): &&(SnapshotInfo, Verdict)| verdict.is_kept() && self.unread.contains(&info.id);
        self.snapshots.iter().find(stays).map(|(info, _)| info.id)
    }

    pub(super) fn lost_ids(&self) -> BTreeSet<SnapshotId> {
        self.lost.iter().map(|info| info.id).collect()
    }

    /// Whatever is not among these stays.
    pub(super) fn keep_all_but(&mut self, approved: &BTreeSet<SnapshotId>) {
        for (info, verdict) in &mut self.snapshots {
            if !verdict.is_kept() && !approved.contains(&info.id) {
                verdict.reasons.insert(Reason::NotApproved);
            }
        }
    }

    /// Snapshots that stay, oldest first. Of one whose own object is lost the head may stay, and reaches nothing.
    pub(super) fn kept(&self) -> Vec<&SnapshotInfo> {
        let stays = |(info, verdict): &&(SnapshotInfo, Verdict)| verdict.is_kept() && !self.unread.contains(&info.id);
        self.snapshots.iter().rev().filter(stays).map(|(info, _)| info).collect()
    }

    /// Snapshots that are there, oldest first, whether they stay or go.
    pub(super) fn readable(&self) -> impl Iterator<Item = &SnapshotInfo> {
        let lost = self.lost_ids();
        self.snapshots.iter().rev().map(|(info, _)| info).filter(move |info| !lost.contains(&info.id))
    }

    /// Heads that go, in order of their names: by the rules, because they are late, or because a lock kept them so far.
    pub(super) fn condemned_heads(&self) -> Vec<CondemnedHead> {
        let gone = self.snapshots.iter().filter(|(_, verdict)| !verdict.is_kept());
        let by_rule = gone.map(|(info, _)| condemned(info, TombstoneReason::Retention));
        in_one_plan(by_rule.chain(self.late_and_left()))
    }

    /// Heads that go without anybody's word.
    pub(super) fn late_and_left(&self) -> Vec<CondemnedHead> {
        let late = self.late.iter().map(|info| condemned(info, TombstoneReason::Late));
        in_one_plan(late.chain(self.left()))
    }

    /// Heads of the newest order of which some store has something still, the head or its snapshot. The next order names
    /// them again, so the newest order always says all that is being taken out, and older ones need not be asked.
    pub(super) fn left(&self) -> impl Iterator<Item = CondemnedHead> {
        let kept: BTreeSet<SnapshotId> = self.kept().iter().map(|info| info.id).collect();
        let order = self.condemned.order.iter().flat_map(|(_, order)| &order.heads);
        let is_there = move |gone: &&CondemnedHead| {
            let snapshot_left = !kept.contains(&gone.snapshot) && self.size_of(&snapshot_name(&gone.snapshot.0)) > 0;
            self.size_of(&gone.head.to_string()) > 0 || snapshot_left
        };
        order.filter(is_there).copied()
    }

    /// How far every chain goes.
    pub(super) fn chains(&self) -> Vec<ChainMark> {
        let mut chains: BTreeMap<(SourceId, IncarnationId), u64> = BTreeMap::new();
        let judged = self.snapshots.iter().map(|(info, _)| info);
        for info in judged.chain(&self.late).chain(&self.going).chain(&self.lost) {
            let counter = chains.entry((info.head.source, info.head.incarnation)).or_default();
            *counter = (*counter).max(info.counter);
        }
        chains.into_iter().map(|((source, incarnation), counter)| ChainMark { source, incarnation, counter }).collect()
    }

    /// The newest head of every chain that has not ended.
    pub(super) fn writers(&self) -> Vec<&SnapshotInfo> {
        let mut newest: BTreeMap<(SourceId, IncarnationId), &SnapshotInfo> = BTreeMap::new();
        for info in self.snapshots.iter().map(|(info, _)| info).chain(&self.late).chain(&self.going) {
            let chain = (info.head.source, info.head.incarnation);
            let last = newest.entry(chain).or_insert(info);
            if info.counter > last.counter {
                *last = info;
            }
        }
        let ended = |info: &&SnapshotInfo| self.condemned.retired_at(info.head.source, info.head.incarnation).is_some();
        newest.into_values().filter(|info| !ended(info)).collect()
    }

    pub(super) fn to_retire(&self, which: Retire<'_>) -> Vec<(SourceId, IncarnationId, u64)> {
        let silent = |info: &SnapshotInfo| match which {
            Retire::None => false,
            Retire::All => true,
            Retire::Chains(chains) => chains.contains(&info.incarnation),
            Retire::Silent(limit) => {
                let mine = self.snapshots.iter().map(|(other, _)| other).filter(|other| other.source == info.source);
                let newest = mine.map(|other| other.taken_unix_ms).max().unwrap_or(info.taken_unix_ms);
                i128::from(newest) - i128::from(info.taken_unix_ms) > limit.as_millis() as i128
            }
        };
        let ended = self.writers().into_iter().filter(|info| silent(info));
        ended.map(|info| (info.head.source, info.head.incarnation, info.counter)).collect()
    }

    pub(super) fn next_number(&self) -> u64 {
        let numbers = self.condemned.names.iter().filter_map(|name| name.parse::<PlanName>().ok());
        numbers.map(|name| name.number).max().unwrap_or(0).saturating_add(1)
    }

    /// An object's size, as the store says that lists the most of it.
    pub(super) fn size_of(&self, name: &str) -> u64 {
        self.views.iter().filter_map(View::objects).filter_map(|objects| objects.get(name).copied()).max().unwrap_or(0)
    }

    /// Whether some store lists an object with this size. At another it may be cut short.
    pub(super) fn somewhere(&self, name: &str, size: u64) -> bool {
        self.views.iter().filter_map(View::objects).any(|objects| objects.get(name) == Some(&size))
    }

    /// Whether every store lists an object with this size.
    pub(super) fn everywhere(&self, name: &str, size: u64) -> bool {
        self.views.iter().all(|view| view.objects().is_some_and(|objects| objects.get(name) == Some(&size)))
    }

    /// Every object of a kind that any store lists, with its size.
    pub(super) fn listed(&self, prefix: &str) -> BTreeMap<&str, u64> {
        let all = self.views.iter().filter_map(View::objects).flatten();
        all.filter(|(name, _)| name.starts_with(prefix)).map(|(name, size)| (name.as_str(), *size)).collect()
    }
}

/// In order of their names, as many as a plan has room for.
fn in_one_plan(heads: impl Iterator<Item = CondemnedHead>) -> Vec<CondemnedHead> {
    let mut heads: Vec<CondemnedHead> = heads.collect();
    heads.sort_unstable_by_key(|gone| gone.head);
    heads.dedup_by_key(|gone| gone.head);
    heads.truncate(PLAN_HEADS_MAX);
    heads
}

fn unreadable(name: &str) -> Error {
    let message = format!("{name} or its snapshot cannot be read: heal it before pruning");
    Error::new(ErrorKind::Damaged, message)
}

/// When each store took each head, by its own clock.
async fn head_dates(stores: &[NamedStore]) -> Result<BTreeMap<String, Vec<i64>>> {
    let mut dates: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for store in stores {
        for object in store.store.list(HEADS).await.map_err(|error| error.context(&store.name))? {
            dates.entry(object.name).or_default().extend(object.modified_unix_ms);
        }
    }
    Ok(dates)
}

fn condemned(info: &SnapshotInfo, reason: TombstoneReason) -> CondemnedHead {
    CondemnedHead { head: info.head, snapshot: info.id, reason }
}
