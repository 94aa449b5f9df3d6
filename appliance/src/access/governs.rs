//! What a patient's consents govern: a short list, and who is held to each part of it.

use super::{Actor, Capacity};

/// What may depend on a patient's consent. The practice itself, which treats, is on no such list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Governs {
    /// Reminders by mail or short message.
    Reminders,
    /// Programs of others: SMART apps, whoever uses them, and backend services, with searches and exports.
    Sharing,
    /// People who act for the patient in the portal.
    Proxies,
}

impl Governs {
    pub const ALL: [Governs; 3] = [Governs::Reminders, Governs::Sharing, Governs::Proxies];

    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Governs::Reminders => "reminders",
            Governs::Sharing => "sharing",
            Governs::Proxies => "proxies",
        }
    }

    pub fn parse(word: &str) -> Option<Governs> {
        Governs::ALL.into_iter().find(|governs| governs.as_str() == word)
    }

    /// What people read on pages.
    pub fn told(self) -> &'static str {
        match self {
            Governs::Reminders => "Reminders by mail or short message",
            Governs::Sharing => "Access of programs outside the practice (apps, services, exports)",
            Governs::Proxies => "Access of people who act for the patient in the portal",
        }
    }

    /// What holds an actor: `None` for the practice's own people and programs, and for the patient.
    pub fn of(actor: &Actor) -> Option<Governs> {
        match actor.capacity {
            Capacity::Proxy(_) => Some(Governs::Proxies),
            Capacity::Patient | Capacity::Anonymous => None,
            // A grant is a program's: also of a person who uses it.
            Capacity::Staff(_) | Capacity::Emergency(_) | Capacity::Program(_) => {
                actor.grant.as_ref().map(|_| Governs::Sharing)
            }
        }
    }
}
