//! Who may do what: accounts, sessions and the one authorization function that FHIR, pages and every later door share.
//!
//! ```text
//! request -> session cookie -> Actor -> authorize(actor, action, object) -> handler -> Store (audited with the actor)
//! ```
//!
//! Rules are a table ([`policy`]): a deny rule wins over any allow rule, and what no rule allows is refused.

pub mod accounts;
pub mod app_cli;
pub mod cli;
pub mod emergency;
pub mod follow;
pub mod governs;
pub mod grant;
pub mod lockout;
pub mod policy;
pub mod portal;
pub mod portal_cli;
pub mod proxy;
pub mod sessions;
pub mod smart;
pub mod webauthn;

pub use governs::Governs;
pub use grant::Grant;
pub use policy::{Action, Denied, Object, authorize};
pub use proxy::Reach;

/// The tables of accounts and sessions. The store's first migration applies them to its own database; the functions of
/// this module then work inside the store's read and write transactions (`&crate::db::Connection`).
pub const SCHEMA: &str = include_str!("schema.sql");
/// Recovery codes and emergency access; applied by a later migration.
pub const SCHEMA_2: &str = include_str!("schema-2.sql");
/// Programs that act for a person; applied by a later migration.
pub const SCHEMA_3: &str = include_str!("schema-3.sql");
/// Accounts of patients; applied by a later migration.
pub const SCHEMA_4: &str = include_str!("schema-4.sql");
/// Passkeys and security keys; applied by a later migration.
pub const SCHEMA_5: &str = include_str!("schema-5.sql");
/// People who act for patients in the portal; applied by a later migration.
pub const SCHEMA_6: &str = include_str!("schema-6.sql");
/// Who a person is, told to programs; applied by a later migration.
pub const SCHEMA_7: &str = include_str!("schema-7.sql");
/// With what somebody logged in; applied by a later migration.
pub const SCHEMA_8: &str = include_str!("schema-8.sql");

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a member of staff does in the practice. One user has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Registers patients and books appointments; sees no notes.
    FrontDesk,
    /// Everything about a patient's care.
    Clinician,
    /// Users, the audit record and registration; sees no clinical content.
    PracticeAdmin,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::FrontDesk, Role::Clinician, Role::PracticeAdmin];

    /// The name in settings, command line and audit rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::FrontDesk => "front-desk",
            Role::Clinician => "clinician",
            Role::PracticeAdmin => "practice-admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no such role; use front-desk, clinician or practice-admin")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(s: &str) -> Result<Self, UnknownRole> {
        Role::ALL.into_iter().find(|r| r.as_str() == s).ok_or(UnknownRole)
    }
}

/// A part of the program that acts without a person in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// The administrator's command line (`appliance user ...`).
    CommandLine,
    /// `appliance import`.
    Import,
    /// `appliance seed`.
    Seed,
    /// The operations socket: quiesce, canary.
    Operations,
    /// `appliance probe` over restored data.
    Probe,
    /// A calendar feed: its address is known to whoever asked for it.
    Feed,
    /// The public pages, on behalf of somebody who proved a mail address.
    OnlineBooking,
    /// Reminders and what else leaves by mail.
    Messages,
    /// The downtime pack, and the office computers that pull it.
    Downtime,
    /// A registered program of somebody else's, within its grant.
    App,
}

impl Program {
    pub fn as_str(self) -> &'static str {
        match self {
            Program::CommandLine => "command-line",
            Program::Import => "import",
            Program::Seed => "seed",
            Program::Operations => "operations",
            Program::Probe => "probe",
            Program::Feed => "calendar-feed",
            Program::OnlineBooking => "online-booking",
            Program::Messages => "messages",
            Program::Downtime => "downtime",
            Program::App => "app",
        }
    }
}

/// In what capacity an [`Actor`] acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capacity {
    Staff(Role),
    /// A member of staff who has broken the glass: reads the clinical record as well.
    Emergency(Role),
    /// A patient in the portal: bound to their own compartment by the actor's grant, and to nothing without one.
    Patient,
    /// Somebody who acts for a patient in the portal, bound like one, and reaching no further than this.
    Proxy(Reach),
    Program(Program),
    /// Nobody has logged in: may only log in.
    Anonymous,
}

/// Who acts: written into every audit row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The user's id (UUID text); a program's name for a program; `anonymous` otherwise. Goes into history and audit.
    pub id: String,
    /// The login name, for the audit page; equal to `id` for programs.
    pub name: String,
    pub capacity: Capacity,
    /// What a program was granted: it narrows what the capacity permits, and never widens it.
    pub grant: Option<Arc<Grant>>,
    /// Which sending of a form this is; `None` outside of forms.
    pub once: Option<Once>,
}

/// One sending of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once {
    /// Who sends, and what the browser drew for the form as it is filled in.
    pub form: [u8; 32],
    /// This request.
    pub request: [u8; 16],
}

impl Actor {
    pub fn staff(id: impl Into<String>, name: impl Into<String>, role: Role) -> Self {
        Self { id: id.into(), name: name.into(), capacity: Capacity::Staff(role), grant: None, once: None }
    }

    pub fn program(program: Program) -> Self {
        let name = program.as_str().to_owned();
        Self { id: name.clone(), name, capacity: Capacity::Program(program), grant: None, once: None }
    }

    /// A patient in the portal, bound to the compartment of `patient`.
    pub fn of_patient(account: &str, patient: &str) -> Self {
        Self::in_portal(account, "patient", Capacity::Patient).bound_to(patient)
    }

    /// Somebody who acts for a patient in the portal, bound to that patient's compartment.
    pub fn of_proxy(account: &str, proxy: &proxy::Proxy) -> Self {
        Self::in_portal(account, &proxy.told(), Capacity::Proxy(proxy.reach)).bound_to(&proxy.patient)
    }

    /// Somebody in the portal who acts for nobody at the moment: for choosing for whom, and nothing else.
    pub fn of_nobody(account: &str) -> Self {
        Self::in_portal(account, "proxy", Capacity::Proxy(Reach::Appointments))
    }

    fn in_portal(account: &str, name: &str, capacity: Capacity) -> Self {
        Self { id: account.to_owned(), name: name.to_owned(), capacity, grant: None, once: None }
    }

    fn bound_to(self, patient: &str) -> Self {
        let scopes = grant::Scope::parse("patient/*.cruds").into_iter().collect();
        self.with_grant(Grant { client: "portal".into(), scopes, patient: Some(patient.to_owned()) })
    }

    /// The patient to whom a session of the portal is bound.
    pub fn patient(&self) -> Option<&str> {
        let own = self.grant.as_ref().filter(|_| matches!(self.capacity, Capacity::Patient | Capacity::Proxy(_)));
        own.and_then(|grant| grant.patient.as_deref())
    }

    /// The same actor, held to a grant.
    #[must_use]
    pub fn with_grant(self, grant: Grant) -> Self {
        Self { grant: Some(Arc::new(grant)), ..self }
    }

    /// The same actor while reading, which saves nothing.
    #[must_use]
    pub fn reading(&self) -> Self {
        Self { once: None, ..self.clone() }
    }

    pub fn anonymous() -> Self {
        Self {
            id: "anonymous".into(),
            name: "anonymous".into(),
            capacity: Capacity::Anonymous,
            grant: None,
            once: None,
        }
    }

    /// The role of a member of staff.
    pub fn role(&self) -> Option<Role> {
        match self.capacity {
            Capacity::Staff(role) | Capacity::Emergency(role) => Some(role),
            Capacity::Patient | Capacity::Proxy(_) | Capacity::Program(_) | Capacity::Anonymous => None,
        }
    }

    /// The word for the capacity in an audit row.
    pub fn capacity_str(&self) -> &'static str {
        match self.capacity {
            Capacity::Staff(role) => role.as_str(),
            Capacity::Emergency(_) => "break-glass",
            Capacity::Patient => "patient",
            Capacity::Proxy(_) => "proxy",
            Capacity::Program(program) => program.as_str(),
            Capacity::Anonymous => "anonymous",
        }
    }
}
