//! Heads that no store has any more and that a person has looked into: they cannot be healed, and are missed no longer.

use super::Maintain;
use crate::failure;
use backup_engine::{HeadName, StoreScrub};
use backupd_api::{Failure, FailureKind};
use std::collections::BTreeSet;

/// Numbers of a chain.
pub(super) struct Gap {
    chain: String,
    first: u64,
    last: u64,
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
    /// Somebody has looked into what was put right at a store, or into this gap: what of it is missed now is missed no
    /// longer.
    pub(super) async fn looked_into(&self, subject: &str) -> Result<(), Failure> {
        if self.close_healed(subject)? {
            return Ok(());
        }
        let gap = Gap::parse(subject)
            .ok_or_else(|| failure::new(FailureKind::NotFound, "no alert of maintenance is closed by that name"))?;
        self.look(None, false, Some(&gap)).await.map(|_| ())
    }

    /// Lets every store off for the heads of the gap that all of them miss, by their names: what goes later is missed again.
    pub(super) fn let_off(&self, gap: &Gap, found: &mut [StoreScrub]) -> Result<(), Failure> {
        if found.iter().any(|seen| seen.error.is_some()) {
            return Err(failure::new(
                FailureKind::Retry,
                "a store does not answer, and may have them: ask again when it does",
            ));
        }
        let missed = |seen: &StoreScrub| seen.missing.iter().filter(|name| gap.holds(name)).cloned().collect();
        let each: Vec<BTreeSet<String>> = found.iter().map(missed).collect();
        let by_all = each.iter().skip(1).fold(each.first().cloned().unwrap_or_default(), |all, one| &all & one);
        if by_all.is_empty() {
            return Err(failure::new(FailureKind::NotFound, "nothing of that is missed"));
        }
        self.records.add_condemned(&by_all).map_err(|error| {
            log::error!(reason:% = error; "maintain.not-recorded");
            failure::new(FailureKind::Retry, "it could not be noted: look at the disk that holds the state of maintain")
        })?;
        for seen in found {
            seen.missing.retain(|name| !by_all.contains(name));
        }
        Ok(())
    }
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
