//! How long the law wants records kept: examples to begin from. Which of them bind a practice is for its counsel to say.
//!
//! They are about the records. Rules made from them keep a snapshot of every year, so that what a record said in that
//! year can be shown after it was changed.

use super::{Basis, Keep, Rule};

/// What a statute counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The record's last entry, or the document's last day in force.
    LastEntry,
    /// The patient's majority, at this age.
    Majority { age: u32 },
}

/// One statute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statute {
    /// What the settings call it.
    pub record_class: &'static str,
    pub citation: &'static str,
    pub years: u32,
    pub from: Start,
    /// It never ends before so many years after the last entry.
    pub at_least_years: u32,
}

/// Examples of the United States.
pub const STATUTES: [Statute; 5] = [
    Statute {
        record_class: "hipaa-documentation",
        citation: "45 CFR 164.316(b)(2)(i)",
        years: 6,
        from: Start::LastEntry,
        at_least_years: 6,
    },
    Statute {
        record_class: "medicare-advantage",
        citation: "42 CFR 422.504(d)",
        years: 10,
        from: Start::LastEntry,
        at_least_years: 10,
    },
    Statute {
        record_class: "adult-california",
        citation: "Cal. Health & Safety Code 123145",
        years: 7,
        from: Start::LastEntry,
        at_least_years: 7,
    },
    Statute {
        record_class: "minor-california",
        citation: "Cal. Health & Safety Code 123145",
        years: 1,
        from: Start::Majority { age: 18 },
        at_least_years: 7,
    },
    Statute {
        record_class: "mammogram",
        citation: "21 CFR 900.12(c)(4)(i)",
        years: 10,
        from: Start::LastEntry,
        at_least_years: 5,
    },
];

impl Statute {
    /// The most years that an entry of today may have to be kept: that of a newborn, where majority counts.
    #[must_use]
    pub fn years_kept(&self) -> u32 {
        let counted = match self.from {
            Start::LastEntry => self.years,
            Start::Majority { age } => age.saturating_add(self.years),
        };
        counted.max(self.at_least_years)
    }

    /// A snapshot of this year and of each year that the statute covers.
    #[must_use]
    pub fn rule(&self, source: Option<String>) -> Rule {
        let basis = Basis { record_class: self.record_class.to_owned(), statute: self.citation.to_owned() };
        Rule { source, keep: Keep::Yearly(self.years_kept().saturating_add(1)), basis: Some(basis) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_counts_from_majority() {
        let years = |class: &str| STATUTES.iter().find(|s| s.record_class == class).unwrap().years_kept();
        assert_eq!((years("adult-california"), years("minor-california")), (7, 19));
        let rule = STATUTES[0].rule(Some("emr".to_owned()));
        assert_eq!(rule.keep, Keep::Yearly(7));
        assert_eq!(rule.basis.unwrap().statute, "45 CFR 164.316(b)(2)(i)");
    }
}
