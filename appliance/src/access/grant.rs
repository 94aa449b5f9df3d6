//! What a program was granted: SMART scopes, and the patient to whom some of them are bound.

use super::{Action, Denied, Object};

/// What a program may do on somebody's behalf, or on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The program's id.
    pub client: String,
    pub scopes: Vec<Scope>,
    /// The logical id of the patient whom `patient/` scopes are bound to.
    pub patient: Option<String>,
}

/// One scope of SMART on FHIR, such as `patient/Observation.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    level: Level,
    /// A resource type; `None` for `*`.
    kind: Option<String>,
    /// Letters of `cruds`.
    may: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// The resources of one patient.
    Patient,
    /// What the person may see and do, and no more.
    User,
    /// What the practice lets this program do by itself.
    System,
}

impl Scope {
    /// `LEVEL/Type.cruds` of SMART 2, `LEVEL/Type.read` and the like of SMART 1; `None` for anything else.
    pub fn parse(text: &str) -> Option<Scope> {
        let (level, rest) = text.split_once('/')?;
        let level = match level {
            "patient" => Level::Patient,
            "user" => Level::User,
            "system" => Level::System,
            _ => return None,
        };
        let (kind, may) = rest.split_once('.')?;
        let may = match may {
            "read" => "rs",
            "write" => "cud",
            "*" => "cruds",
            // The letters in their order, each once.
            letters if !letters.is_empty() && is_part_of_cruds(letters) => letters,
            _ => return None,
        };
        let kind = match kind {
            "*" => None,
            kind if crate::fhir::types::is_kept(kind) || kind == "Binary" => Some(kind.to_owned()),
            _ => return None,
        };
        Some(Scope { level, kind, may: may.to_owned() })
    }

    pub fn is_system(&self) -> bool {
        self.level == Level::System
    }

    pub fn is_patient(&self) -> bool {
        self.level == Level::Patient
    }

    /// The resource type; `None` for all.
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    /// The letters of `cruds` that it permits.
    pub fn letters(&self) -> &str {
        &self.may
    }

    /// Whether everything that `asked` permits is permitted by this scope.
    pub fn covers(&self, asked: &Scope) -> bool {
        self.level == asked.level
            && (self.kind.is_none() || self.kind == asked.kind)
            && asked.may.chars().all(|letter| self.may.contains(letter))
    }

    fn permits(&self, letter: char, kind: &str) -> bool {
        self.may.contains(letter) && self.kind.as_deref().is_none_or(|own| own == kind)
    }
}

fn is_part_of_cruds(letters: &str) -> bool {
    let mut rest = "cruds".chars();
    letters.chars().all(|letter| rest.any(|next| next == letter))
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Patient => "patient",
            Level::User => "user",
            Level::System => "system",
        };
        write!(f, "{level}/{}.{}", self.kind.as_deref().unwrap_or("*"), self.may)
    }
}

impl Grant {
    /// Whether some scope permits this at all; whose records it reaches is [`Grant::bound`].
    pub fn check(&self, action: Action, object: Object<'_>) -> Result<(), Denied> {
        match object {
            Object::Public | Object::OwnSession => Ok(()),
            Object::Resource { kind, .. } if self.scopes.iter().any(|scope| scope.permits(letter(action), kind)) => {
                Ok(())
            }
            // Many patients are no business of a program that is bound to one.
            Object::Cohort if self.scopes.iter().any(|scope| !scope.is_patient()) => Ok(()),
            // Whether there is somebody who may read it, the policy says.
            Object::AccessRecord { patient } if self.patient.as_deref() == Some(patient) => Ok(()),
            // Accounts, the audit record and everything unnamed are no business of a program's.
            Object::Resource { .. }
            | Object::AccessRecord { .. }
            | Object::AuditLog
            | Object::Users
            | Object::Practice
            | Object::Cohort => Err(Denied::NotPermitted),
        }
    }

    /// The patient to whom this action is bound: `None` where a scope permits it for every patient, an empty id where no
    /// patient was chosen, which is nobody's.
    pub fn bound(&self, action: Action, kind: &str) -> Option<&str> {
        let wide = |scope: &Scope| scope.level != Level::Patient && scope.permits(letter(action), kind);
        if self.scopes.iter().any(wide) { None } else { Some(self.patient.as_deref().unwrap_or_default()) }
    }
}

/// The letter of `cruds`; signing is no program's.
fn letter(action: Action) -> char {
    match action {
        Action::Create => 'c',
        Action::Read => 'r',
        Action::Update => 'u',
        Action::Delete => 'd',
        Action::Search => 's',
        Action::Sign => '-',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(scopes: &[&str], patient: Option<&str>) -> Grant {
        let scopes = scopes.iter().map(|scope| Scope::parse(scope).unwrap()).collect();
        Grant { client: "app".into(), scopes, patient: patient.map(str::to_owned) }
    }

    #[test]
    fn scopes_are_read_as_smart_writes_them_and_no_wider() {
        for (text, told) in [
            ("patient/Observation.rs", Some("patient/Observation.rs")),
            ("user/*.cruds", Some("user/*.cruds")),
            ("system/Patient.read", Some("system/Patient.rs")),
            ("patient/*.*", Some("patient/*.cruds")),
            ("patient/Observation.sr", None),
            ("patient/Observation.rr", None),
            ("patient/Observation.", None),
            ("patient/Nonsense.r", None),
            ("patient/AuditEvent.r", None),
            ("practice/Patient.r", None),
            ("patient/Observation.rs?category=vital-signs", None),
            ("openid", None),
        ] {
            assert_eq!(Scope::parse(text).map(|scope| scope.to_string()).as_deref(), told, "{text}");
        }
        let covers = |own: &str, asked: &str| Scope::parse(own).unwrap().covers(&Scope::parse(asked).unwrap());
        assert!(covers("system/*.rs", "system/Patient.r"));
        assert!(!covers("system/Patient.rs", "system/*.rs") && !covers("system/*.rs", "system/Patient.rds"));
        assert!(!covers("system/*.rs", "user/Patient.r"));
    }

    #[test]
    fn a_grant_permits_what_a_scope_names_and_nothing_beside_records() {
        let app = grant(&["patient/Observation.rs", "user/Patient.r"], Some("p"));
        assert!(app.check(Action::Read, Object::resource("Observation")).is_ok());
        for (action, object) in [
            (Action::Create, Object::resource("Observation")),
            (Action::Search, Object::resource("Patient")),
            (Action::Read, Object::resource("Condition")),
            (Action::Read, Object::AuditLog),
            (Action::Read, Object::Users),
            (Action::Sign, Object::resource("Observation")),
        ] {
            assert_eq!(app.check(action, object), Err(Denied::NotPermitted), "{action:?} {object:?}");
        }
        assert_eq!(app.bound(Action::Read, "Observation"), Some("p"));
        assert_eq!(app.bound(Action::Read, "Patient"), None);
        assert_eq!(grant(&["patient/*.rs"], None).bound(Action::Read, "Patient"), Some(""), "no patient is nobody");
    }
}
