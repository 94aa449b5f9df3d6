//! Who may do what. The table below is the whole rule: every route names one [`Action`] or says why it needs none.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the backup day by day.
    PracticeIt,
    /// Hands in the data center: sees health, and nothing about the practice.
    DataCenter,
    /// Reads reports and evidence; changes nothing.
    Auditor,
    /// The practice's owner, the only one who approves reports and deletions.
    Owner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    SeeHealth,
    SeePosture,
    SeeSnapshots,
    SeeReports,
    DownloadEvidence,
    StartBackup,
    StartDrill,
    SeeAlerts,
    AcknowledgeAlert,
    TestAlert,
    SeeAudit,
    SeeAccounts,
    ApproveReport,
    SeeDeletions,
    /// Make a plan, which changes nothing.
    PlanDeletion,
    /// Approve or refuse a plan.
    DecideDeletion,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::PracticeIt, Role::DataCenter, Role::Auditor, Role::Owner];

    pub fn word(self) -> &'static str {
        match self {
            Self::PracticeIt => "practice-it",
            Self::DataCenter => "data-center",
            Self::Auditor => "auditor",
            Self::Owner => "owner",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::PracticeIt => "Practice IT",
            Self::DataCenter => "Data center",
            Self::Auditor => "Auditor",
            Self::Owner => "Owner",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }

    /// Where this role starts after signing in.
    pub fn home(self) -> &'static str {
        if self.may(Action::SeePosture) { "/" } else { "/hosts" }
    }

    pub fn may(self, action: Action) -> bool {
        use Action::*;
        match self {
            Self::DataCenter => matches!(action, SeeHealth),
            Self::Auditor => matches!(
                action,
                SeeHealth
                    | SeePosture
                    | SeeSnapshots
                    | SeeReports
                    | DownloadEvidence
                    | SeeAlerts
                    | SeeAudit
                    | SeeAccounts
                    | SeeDeletions
            ),
            Self::PracticeIt => !matches!(action, ApproveReport | DecideDeletion),
            Self::Owner => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_approves_and_an_auditor_changes_nothing() {
        use Action::*;
        for role in Role::ALL {
            for decision in [ApproveReport, DecideDeletion] {
                assert_eq!(role.may(decision), role == Role::Owner, "{role:?}");
            }
        }
        for change in
            [StartBackup, StartDrill, AcknowledgeAlert, TestAlert, ApproveReport, PlanDeletion, DecideDeletion]
        {
            assert!(!Role::Auditor.may(change), "{change:?}");
        }
    }

    #[test]
    fn hands_in_the_data_center_see_health_only() {
        use Action::*;
        for action in [
            SeePosture,
            SeeSnapshots,
            SeeReports,
            DownloadEvidence,
            StartBackup,
            StartDrill,
            SeeAlerts,
            AcknowledgeAlert,
            TestAlert,
            SeeAudit,
            SeeAccounts,
            ApproveReport,
            SeeDeletions,
            PlanDeletion,
            DecideDeletion,
        ] {
            assert!(!Role::DataCenter.may(action), "{action:?}");
        }
        assert!(Role::DataCenter.may(SeeHealth));
    }

    #[test]
    fn words_come_back() {
        for role in Role::ALL {
            assert_eq!(Role::from_word(role.word()), Some(role));
        }
        assert_eq!(Role::from_word("root"), None);
    }
}
