//! Heads that no store has any more and that a person has looked into: they cannot be healed, and are missed no longer.

use super::Maintain;
use crate::failure;
use backup_engine::{ErrorKind, HeadName, HealOutcome, StoreScrub};
use backupd_api::{Failure, FailureKind};
use std::collections::BTreeSet;

/// Numbers of a chain.
pub(super) struct Gap {
    chain: String,
    first: u64,
    last: u64,
}

/// What a person knows of.
pub(super) enum LetOff {
    Gap(Gap),
    /// Whatever nobody can bring back.
    Lost,
}

impl Gap {
    /// `source/chain/FIRST-LAST` or `source/chain/NUMBER`, as the alert names it. The source's name is not needed: a chain is of one.
    fn parse(subject: &str) -> Option<Self> {
        let mut parts = subject.rsplitn(3, '/');
        let (numbers, chain) = (parts.next()?, parts.next()?);
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        Some(Self { chain: chain.to_owned(), first: first.parse().ok()?, last: last.parse().ok()? })
    }

    fn holds(&self, object: &str) -> bool {
        let head = object.parse::<HeadName>();
        head.is_ok_and(|head| {
            head.incarnation.to_string() == self.chain && (self.first..=self.last).contains(&head.counter)
        })
    }
}

impl Maintain {
    /// Somebody has looked into what was put right at a store, what it lacks, or this gap: what of it no store has now is
    /// missed no longer, and a deletion plan that it stopped can be made.
    pub(super) async fn looked_into(&self, subject: &str) -> Result<(), Failure> {
        let healed = self.close_healed(subject)?;
        let misses = self.records.last_look(subject).is_some_and(|row| !row.left.is_empty());
        let what = match Gap::parse(subject) {
            Some(gap) => Some(LetOff::Gap(gap)),
            None if misses => Some(LetOff::Lost),
            None => None,
        };
        if let Some(what) = &what {
            self.look(None, false, Some(what)).await?;
        }
        let is_store = self.stores.iter().any(|store| store.name == subject);
        let given_up = is_store && self.give_up_lost().await?;
        if what.is_none() && !healed && !given_up {
            return Err(failure::new(FailureKind::NotFound, "no alert of maintenance is closed by that name"));
        }
        Ok(())
    }

    /// Lets every store off for the heads of the gap that all of them miss, by their names: what goes later is missed again.
    pub(super) fn let_off(&self, gap: &Gap, found: &mut [StoreScrub]) -> Result<(), Failure> {
        all_answer(found)?;
        let missed = |seen: &StoreScrub| seen.missing.iter().filter(|name| gap.holds(name)).cloned().collect();
        let each: Vec<BTreeSet<String>> = found.iter().map(missed).collect();
        let by_all = each.iter().skip(1).fold(each.first().cloned().unwrap_or_default(), |all, one| &all & one);
        if by_all.is_empty() {
            return Err(failure::new(FailureKind::NotFound, "nothing of that is missed"));
        }
        self.miss_no_longer(&by_all, found)
    }

    /// The same for what is missing and could not be brought back from anywhere.
    pub(super) fn let_off_lost(&self, found: &mut [StoreScrub], outcome: &mut HealOutcome) -> Result<(), Failure> {
        all_answer(found)?;
        // What could not be put back for another reason, as a full or read-only store, another store has.
        let nowhere = outcome.left.iter().filter(|(_, _, error)| error.kind() == ErrorKind::Damaged);
        let left = nowhere.map(|(_, name, _)| name);
        // What this very look finds was not known to whoever asked.
        let told = self.records.told().map_err(|error| not_noted(&error))?;
        let lost: BTreeSet<String> = left.filter(|name| told.contains(*name)).cloned().collect();
        self.miss_no_longer(&lost, found)?;
        outcome.left.retain(|(_, name, _)| !lost.contains(name));
        Ok(())
    }

    fn miss_no_longer(&self, names: &BTreeSet<String>, found: &mut [StoreScrub]) -> Result<(), Failure> {
        self.records.let_off(names).map_err(|error| not_noted(&error))?;
        for seen in found {
            seen.missing.retain(|name| !names.contains(name));
            seen.corrupt.retain(|name| !names.contains(name));
        }
        Ok(())
    }
}

pub(super) fn not_noted(error: &rusqlite::Error) -> Failure {
    log::error!(reason:% = error; "maintain.not-recorded");
    failure::new(FailureKind::Retry, "it could not be noted: look at the disk that holds the state of maintain")
}

fn all_answer(found: &[StoreScrub]) -> Result<(), Failure> {
    if found.iter().any(|seen| seen.error.is_some()) {
        let message = "a store does not answer, and may have them: ask again when it does";
        return Err(failure::new(FailureKind::Retry, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_holds_the_heads_of_its_numbers_alone() {
        let chain = "0123456789abcdef0123456789abcdef";
        let head = |counter: u64| format!("heads/{}/{chain}/{counter:016x}-{}", "ab".repeat(16), "cd".repeat(32));
        assert!(head(1).parse::<HeadName>().is_ok(), "{}", head(1));
        let gap = Gap::parse(&format!("emr/{chain}/7-9")).unwrap();
        assert_eq!([6, 7, 9, 10].map(|counter| gap.holds(&head(counter))), [false, true, true, false]);
        assert!(!gap.holds("packs/ab/cd") && !gap.holds(&head(7).replace("0123", "4567")));
        assert!(Gap::parse(&format!("emr/{chain}/12")).unwrap().holds(&head(12)));
        for no_gap in ["", "provider-north", "emr/x/y", "emr"] {
            assert!(Gap::parse(no_gap).is_none(), "{no_gap}");
        }
    }
}
