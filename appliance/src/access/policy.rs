//! The one authorization function and its table.

use super::{Actor, Capacity, Governs, Program, Reach, Role};

/// What is about to happen to an [`Object`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Read,
    /// Search, list and history: reading many.
    Search,
    Create,
    Update,
    Delete,
    /// Make a note final. Afterwards only an addendum is possible.
    Sign,
}

impl Action {
    pub const ALL: [Action; 6] =
        [Action::Read, Action::Search, Action::Create, Action::Update, Action::Delete, Action::Sign];

    fn is_read(self) -> bool {
        matches!(self, Action::Read | Action::Search)
    }
}

/// What is acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object<'a> {
    /// A FHIR resource of a type, in the compartment of a patient (the patient's id) where it has one. `withheld` is what this
    /// patient's consents do not let happen.
    Resource { kind: &'a str, patient: Option<&'a str>, withheld: Option<Governs> },
    /// The record of who looked.
    AuditLog,
    /// Who looked at one patient's record, for that patient.
    AccessRecord { patient: &'a str },
    /// Accounts of the staff.
    Users,
    /// All that the practice has, taken along at once.
    Practice,
    /// The records of many patients at once: the export of a group.
    Cohort,
    /// The actor's own session and password.
    OwnSession,
    /// Login, invitation, static files, capability statement: what anybody may ask for.
    Public,
}

impl<'a> Object<'a> {
    pub fn resource(kind: &'a str) -> Self {
        Object::Resource { kind, patient: None, withheld: None }
    }

    pub fn of_patient(kind: &'a str, patient: &'a str) -> Self {
        Object::Resource { kind, patient: Some(patient), withheld: None }
    }

    /// What belongs to a patient who has not let this happen.
    pub fn withheld(kind: &'a str, governs: Governs) -> Self {
        Object::Resource { kind, patient: None, withheld: Some(governs) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("log in first")]
    NotLoggedIn,
    #[error("your role does not permit this; ask a practice administrator if you need it for your work")]
    NotPermitted,
    #[error("the patient's consent does not permit this: it was refused, withdrawn, or never given")]
    Withheld,
}

/// Groups of resource types that one rule speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    /// Who the patient is and who pays.
    Registration,
    /// Appointments and free times.
    Scheduling,
    /// Practitioners, organizations, places.
    Directory,
    /// Allergies: on the banner of every patient page, so everybody who meets the patient sees them.
    Safety,
    /// Diagnoses, orders, measurements, encounters.
    Clinical,
    /// Free text and files: notes, letters, scans.
    Notes,
    /// Claims and money.
    Finance,
    /// What is the same for every patient: code systems, definitions, knowledge about medicines.
    Definitions,
    /// What the people of the practice ask of each other.
    Tasks,
    /// What patients consented to.
    Consents,
    /// `AuditEvent`: read-only for everybody, written by the store alone.
    Audit,
    Users,
    /// An export of everything: the owner's right to leave, which an administrator exercises. It is a grave thing, so it is
    /// read only, asked for with the password again, in the access record, and told to whom alerts go.
    Practice,
}

fn class_of(kind: &str) -> Option<Class> {
    Some(match kind {
        "Patient" | "RelatedPerson" | "Coverage" | "Person" => Class::Registration,
        "Appointment" | "AppointmentResponse" | "Schedule" | "Slot" => Class::Scheduling,
        "Practitioner"
        | "PractitionerRole"
        | "Organization"
        | "Location"
        | "HealthcareService"
        | "Endpoint"
        | "OrganizationAffiliation"
        | "InsurancePlan"
        | "VerificationResult" => Class::Directory,
        "AllergyIntolerance" => Class::Safety,
        "Condition"
        | "MedicationRequest"
        | "Medication"
        | "MedicationStatement"
        | "MedicationAdministration"
        | "MedicationDispense"
        | "Observation"
        | "DiagnosticReport"
        | "Procedure"
        | "Immunization"
        | "Encounter"
        | "EpisodeOfCare"
        | "CarePlan"
        | "CareTeam"
        | "Goal"
        | "Device"
        | "ImagingStudy"
        | "ServiceRequest"
        | "SupplyRequest"
        | "SupplyDelivery"
        | "Specimen"
        | "FamilyMemberHistory"
        | "ClinicalImpression"
        | "Questionnaire"
        | "QuestionnaireResponse"
        | "Provenance"
        | "Flag"
        | "List"
        | "Group"
        | "Basic"
        | "AdverseEvent"
        | "BiologicallyDerivedProduct"
        | "BodyStructure"
        | "CommunicationRequest"
        | "DetectedIssue"
        | "DeviceMetric"
        | "DeviceRequest"
        | "DeviceUseStatement"
        | "GuidanceResponse"
        | "ImmunizationEvaluation"
        | "ImmunizationRecommendation"
        | "Linkage"
        | "MeasureReport"
        | "MolecularSequence"
        | "NutritionOrder"
        | "RequestGroup"
        | "ResearchSubject"
        | "RiskAssessment"
        | "Substance"
        | "VisionPrescription" => Class::Clinical,
        "Composition" | "DocumentReference" | "Binary" | "Media" | "DocumentManifest" | "Bundle" | "MessageHeader" => {
            Class::Notes
        }
        "Claim"
        | "ClaimResponse"
        | "ExplanationOfBenefit"
        | "Account"
        | "ChargeItem"
        | "ChargeItemDefinition"
        | "Invoice"
        | "PaymentNotice"
        | "PaymentReconciliation"
        | "CoverageEligibilityRequest"
        | "CoverageEligibilityResponse"
        | "Contract"
        | "EnrollmentRequest"
        | "EnrollmentResponse" => Class::Finance,
        "Task" | "Communication" => Class::Tasks,
        "Consent" => Class::Consents,
        "AuditEvent" => Class::Audit,
        // Every other type that is kept says nothing about a patient.
        kind if crate::fhir::types::is_kept(kind) => Class::Definitions,
        _ => return None,
    })
}

/// Whether resources of a type are the same for every patient, so that reading one tells nothing about any.
pub fn is_shared(kind: &str) -> bool {
    matches!(class_of(kind), Some(Class::Directory | Class::Definitions))
        || matches!(kind, "Medication" | "Questionnaire")
}

/// Rules that no allow rule can overrule.
fn denied(role: Role, action: Action, class: Class) -> bool {
    match (role, class) {
        // The record of who looked is written by the store and changed by nobody.
        (_, Class::Audit) => !action.is_read() || role != Role::PracticeAdmin,
        // Neither registration nor administration needs what was written about the patient.
        (Role::FrontDesk | Role::PracticeAdmin, Class::Notes | Class::Clinical) => true,
        // Who treats does not administer the accounts of those who are watched.
        (Role::FrontDesk | Role::Clinician, Class::Users) => true,
        // Legal record: nothing clinical is removed; a mistake is marked entered-in-error by an update.
        (_, Class::Notes | Class::Clinical | Class::Safety | Class::Finance | Class::Tasks | Class::Consents) => {
            action == Action::Delete
        }
        _ => action == Action::Sign && class != Class::Notes,
    }
}

fn allowed(role: Role, action: Action, class: Class) -> bool {
    use Class::*;
    match role {
        Role::FrontDesk => match class {
            Registration | Scheduling => action != Action::Delete,
            Directory | Safety | Definitions => action.is_read(),
            Finance | Tasks | Consents => action != Action::Delete,
            Clinical | Notes | Audit | Users | Practice => false,
        },
        Role::Clinician => match class {
            Registration | Scheduling | Safety | Clinical | Tasks | Consents => action != Action::Delete,
            Notes => true,
            Directory | Finance | Definitions => action.is_read(),
            Audit | Users | Practice => false,
        },
        Role::PracticeAdmin => match class {
            Registration | Scheduling | Directory | Definitions | Users => true,
            Safety | Audit | Practice => action.is_read(),
            Finance | Consents => action.is_read(),
            Clinical | Notes | Tasks => false,
        },
    }
}

/// Decides whether `actor` may do `action` to `object`: the only place where this is decided.
///
/// # Errors
/// [`Denied::NotLoggedIn`] for the anonymous actor, [`Denied::Withheld`] for whom a patient keeps out, [`Denied::NotPermitted`]
/// for everybody else.
pub fn authorize(actor: &Actor, action: Action, object: Object<'_>) -> Result<(), Denied> {
    // A patient's no wins over whatever anybody was granted. It holds only whom it speaks of: nobody who treats is locked out.
    if let Object::Resource { withheld: Some(governs), .. } = object
        && Governs::of(actor) == Some(governs)
    {
        return Err(Denied::Withheld);
    }
    if let Some(grant) = &actor.grant {
        grant.check(action, object)?;
    }
    let role = match actor.capacity {
        _ if object == Object::Public => return Ok(()),
        Capacity::Anonymous => return Err(Denied::NotLoggedIn),
        Capacity::Patient | Capacity::Proxy(_) => return authorize_patient(actor, action, object),
        Capacity::Program(program) => return authorize_program(program, action, object),
        Capacity::Staff(role) | Capacity::Emergency(role) => role,
    };
    let class = match object {
        Object::Public | Object::OwnSession => return Ok(()),
        // The staff reads the record of everybody, or not at all.
        Object::AccessRecord { .. } => return Err(Denied::NotPermitted),
        Object::AuditLog => Class::Audit,
        Object::Users => Class::Users,
        Object::Practice => Class::Practice,
        // The glass is broken for one patient who must be treated, never for the records of many.
        Object::Cohort if matches!(actor.capacity, Capacity::Emergency(_)) => return Err(Denied::NotPermitted),
        Object::Cohort => Class::Clinical,
        Object::Resource { kind, .. } => class_of(kind).ok_or(Denied::NotPermitted)?,
    };
    // The glass is broken for reading what is needed to treat, and for nothing else.
    let emergency = matches!(actor.capacity, Capacity::Emergency(_))
        && action.is_read()
        && matches!(class, Class::Clinical | Class::Notes | Class::Safety);
    if emergency || !denied(role, action, class) && allowed(role, action, class) {
        Ok(())
    } else {
        Err(Denied::NotPermitted)
    }
}

/// What patients may do in their own compartment, and who acts for them: read what was recorded and concluded, answer, write,
/// cancel, consent. Whose compartment it is, the store asks of the grant; here nothing is permitted without one.
fn authorize_patient(actor: &Actor, action: Action, object: Object<'_>) -> Result<(), Denied> {
    if matches!(object, Object::Public | Object::OwnSession) {
        return Ok(());
    }
    let own = actor.patient().ok_or(Denied::NotPermitted)?;
    if actor.capacity == Capacity::Proxy(Reach::Appointments) && !reaches_appointments(action, object) {
        return Err(Denied::NotPermitted);
    }
    let permitted = match object {
        Object::Public | Object::OwnSession => true,
        Object::AccessRecord { patient } => action.is_read() && patient == own,
        Object::Resource { patient: Some(patient), .. } if patient != own => false,
        Object::Resource { kind, .. } => match (action, kind) {
            (Action::Read | Action::Search, "Patient" | "Appointment" | "Communication" | "Medication") => true,
            (
                Action::Read | Action::Search,
                "Questionnaire" | "QuestionnaireResponse" | "DocumentReference" | "Binary",
            ) => true,
            (
                Action::Read | Action::Search,
                "AllergyIntolerance" | "Condition" | "MedicationRequest" | "Immunization" | "Observation"
                | "DiagnosticReport",
            ) => true,
            // What they were asked and decided, by which they decide anew.
            (Action::Read | Action::Search | Action::Create | Action::Update, "Consent") => true,
            (Action::Create, "Communication" | "Task") => true,
            (Action::Update, "Appointment" | "QuestionnaireResponse") => true,
            (Action::Read, kind) => class_of(kind) == Some(Class::Directory),
            _ => false,
        },
        Object::Practice | Object::Cohort | Object::AuditLog | Object::Users => false,
    };
    if permitted { Ok(()) } else { Err(Denied::NotPermitted) }
}

/// What remains to somebody who acts for a patient in appointments alone: whose they are, when and with whom. Whether anything
/// else is there is none of their business.
fn reaches_appointments(action: Action, object: Object<'_>) -> bool {
    match object {
        Object::Resource { kind: "Patient", .. } => action == Action::Read,
        Object::Resource { kind: "Appointment", .. } => action.is_read() || action == Action::Update,
        Object::Resource { kind, .. } => action == Action::Read && class_of(kind) == Some(Class::Directory),
        _ => false,
    }
}

fn authorize_program(program: Program, action: Action, object: Object<'_>) -> Result<(), Denied> {
    let permitted = match (program, object) {
        (Program::CommandLine, Object::Users) => true,
        (Program::CommandLine, Object::Practice) => action.is_read(),
        (Program::Import | Program::Seed, Object::Resource { kind, .. }) => class_of(kind) != Some(Class::Audit),
        // The canary is the one resource that the operations side writes.
        (Program::Operations, Object::Resource { kind: "Basic", patient: None, .. }) => true,
        (Program::Feed, Object::Resource { kind, .. }) => {
            action.is_read() && matches!(class_of(kind), Some(Class::Scheduling | Class::Directory))
        }
        (Program::OnlineBooking, Object::Resource { kind, .. }) => match class_of(kind) {
            Some(Class::Scheduling) => action != Action::Delete,
            Some(Class::Registration) => kind == "Patient" && matches!(action, Action::Search | Action::Create),
            Some(Class::Directory) => action.is_read(),
            _ => false,
        },
        (Program::Messages, Object::Resource { kind, .. }) => {
            action == Action::Read && matches!(kind, "Patient" | "Appointment")
        }
        (Program::Downtime, Object::Resource { kind, .. }) => {
            action.is_read()
                && matches!(kind, "Patient" | "Appointment" | "AllergyIntolerance" | "Condition" | "MedicationRequest")
        }
        // Its scopes were asked above; what no role may do, no program does.
        (Program::App, Object::OwnSession) => true,
        (Program::App, Object::Cohort) => action.is_read(),
        (Program::App, Object::Resource { kind, .. }) => {
            let writes = !matches!(action, Action::Delete | Action::Sign);
            class_of(kind).is_some_and(|class| class != Class::Audit) && writes
        }
        (Program::Operations | Program::Probe, Object::Resource { .. } | Object::AuditLog) => action.is_read(),
        _ => false,
    };
    if permitted { Ok(()) } else { Err(Denied::NotPermitted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staff(role: Role) -> Actor {
        Actor::staff("u1", "u1", role)
    }

    #[test]
    fn front_desk_registers_and_books_but_reads_no_note() {
        let desk = staff(Role::FrontDesk);
        assert_eq!(authorize(&desk, Action::Create, Object::resource("Patient")), Ok(()));
        assert_eq!(authorize(&desk, Action::Create, Object::resource("Appointment")), Ok(()));
        assert_eq!(authorize(&desk, Action::Read, Object::resource("AllergyIntolerance")), Ok(()));
        for kind in ["DocumentReference", "Binary", "Composition", "Condition", "Encounter", "Observation"] {
            for action in Action::ALL {
                assert_eq!(authorize(&desk, action, Object::resource(kind)), Err(Denied::NotPermitted), "{kind}");
            }
        }
    }

    #[test]
    fn who_breaks_the_glass_reads_and_changes_nothing() {
        for role in [Role::FrontDesk, Role::PracticeAdmin] {
            let actor = Actor { capacity: Capacity::Emergency(role), ..staff(role) };
            for kind in ["Condition", "DocumentReference", "Binary", "Observation"] {
                for action in Action::ALL {
                    assert_eq!(authorize(&actor, action, Object::resource(kind)).is_ok(), action.is_read(), "{kind}");
                }
            }
            assert_eq!(authorize(&actor, Action::Read, Object::Users).is_ok(), role == Role::PracticeAdmin);
            assert_eq!(authorize(&actor, Action::Read, Object::resource("Group")), Ok(()));
            assert_eq!(
                authorize(&actor, Action::Read, Object::Cohort),
                Err(Denied::NotPermitted),
                "one patient, not many"
            );
        }
    }

    #[test]
    fn deny_wins_over_allow() {
        // Clinicians are allowed every action on notes, and still nobody deletes one.
        let clinician = staff(Role::Clinician);
        assert!(allowed(Role::Clinician, Action::Delete, Class::Notes));
        assert_eq!(
            authorize(&clinician, Action::Delete, Object::resource("DocumentReference")),
            Err(Denied::NotPermitted)
        );
        assert_eq!(authorize(&clinician, Action::Sign, Object::resource("DocumentReference")), Ok(()));
    }

    #[test]
    fn nobody_writes_the_audit_record() {
        for role in Role::ALL {
            for action in [Action::Create, Action::Update, Action::Delete, Action::Sign] {
                assert!(authorize(&staff(role), action, Object::AuditLog).is_err());
                assert!(authorize(&staff(role), action, Object::resource("AuditEvent")).is_err());
            }
            assert_eq!(authorize(&staff(role), Action::Read, Object::AuditLog).is_ok(), role == Role::PracticeAdmin);
        }
    }

    #[test]
    fn who_acts_for_a_patient_reaches_no_further_than_was_granted() {
        let proxy = |reach| {
            let patient = Actor::of_patient("account", "own");
            Actor { capacity: Capacity::Proxy(reach), ..patient }
        };
        let (all, few) = (proxy(Reach::All), proxy(Reach::Appointments));
        for kind in crate::fhir::types::TYPES.into_iter().chain(["Binary", "AuditEvent"]) {
            for action in Action::ALL {
                let object = Object::resource(kind);
                let patient = Actor::of_patient("account", "own");
                assert_eq!(authorize(&all, action, object), authorize(&patient, action, object), "{kind}");
                let told = match kind {
                    "Patient" => action == Action::Read,
                    "Appointment" => action.is_read() || action == Action::Update,
                    _ => action == Action::Read && class_of(kind) == Some(Class::Directory),
                };
                assert_eq!(authorize(&few, action, object).is_ok(), told, "{action:?} {kind}");
                assert!(authorize(&all, action, Object::of_patient(kind, "other")).is_err(), "{kind}");
            }
        }
        let record = Object::AccessRecord { patient: "own" };
        assert!(authorize(&all, Action::Read, record).is_ok() && authorize(&few, Action::Read, record).is_err());
        assert!(authorize(&few, Action::Read, Object::OwnSession).is_ok());
    }

    #[test]
    fn a_patient_reads_answers_and_cancels_and_no_more() {
        let patient = Actor::of_patient("account", "own");
        let may = |action, kind| authorize(&patient, action, Object::resource(kind)).is_ok();
        for kind in
            ["Patient", "Condition", "Observation", "DocumentReference", "Binary", "Appointment", "Communication"]
        {
            assert!(may(Action::Read, kind), "{kind}");
            assert_eq!(authorize(&patient, Action::Read, Object::of_patient(kind, "other")), Err(Denied::NotPermitted));
            for action in [Action::Delete, Action::Sign] {
                assert!(!may(action, kind), "{kind}");
            }
        }
        // What the staff says to each other, money and definitions of others are not a patient's to read or write.
        for kind in ["Task", "Claim", "Account", "AuditEvent", "Schedule", "Provenance", "Basic", "Group"] {
            assert!(!may(Action::Read, kind) && !may(Action::Search, kind) && !may(Action::Update, kind), "{kind}");
        }
        for kind in ["Patient", "Condition", "Observation", "DocumentReference", "Practitioner", "Questionnaire"] {
            assert!(!may(Action::Create, kind) && !may(Action::Update, kind), "{kind}");
        }
        assert!(authorize(&patient, Action::Read, Object::AccessRecord { patient: "own" }).is_ok());
        for object in [Object::AccessRecord { patient: "other" }, Object::AuditLog, Object::Users] {
            assert_eq!(authorize(&patient, Action::Read, object), Err(Denied::NotPermitted), "{object:?}");
        }
        // Without its grant the capacity opens nothing.
        let unbound = Actor { grant: None, ..patient };
        assert!(authorize(&unbound, Action::Read, Object::resource("Patient")).is_err());
        for action in Action::ALL {
            assert!(authorize(&unbound, action, Object::AccessRecord { patient: "own" }).is_err());
        }
        for role in Role::ALL {
            assert!(authorize(&staff(role), Action::Read, Object::AccessRecord { patient: "own" }).is_err());
        }
    }

    #[test]
    fn a_patients_no_keeps_out_whom_it_speaks_of_and_nobody_who_treats() {
        let app = |actor: Actor| {
            let scopes = ["user/*.cruds", "system/*.cruds", "patient/*.cruds"];
            let scopes = scopes.into_iter().filter_map(super::super::grant::Scope::parse).collect();
            actor.with_grant(super::super::Grant { client: "app".into(), scopes, patient: Some("own".into()) })
        };
        let patient = Actor::of_patient("account", "own");
        let proxy = |reach| Actor { capacity: Capacity::Proxy(reach), ..patient.clone() };
        let mut held = vec![
            (app(Actor::program(Program::App)), Some(Governs::Sharing)),
            (proxy(Reach::All), Some(Governs::Proxies)),
            (proxy(Reach::Appointments), Some(Governs::Proxies)),
            (patient.clone(), None),
        ];
        for role in Role::ALL {
            held.push((app(staff(role)), Some(Governs::Sharing)));
            held.push((staff(role), None));
            held.push((Actor { capacity: Capacity::Emergency(role), ..staff(role) }, None));
        }
        for program in [Program::Feed, Program::Downtime, Program::Messages, Program::Operations, Program::Probe] {
            held.push((Actor::program(program), None));
        }
        for (actor, governs) in held {
            for kind in crate::fhir::types::TYPES.into_iter().chain(["Binary"]) {
                for action in Action::ALL {
                    for withheld in Governs::ALL {
                        let found = authorize(&actor, action, Object::withheld(kind, withheld));
                        match governs == Some(withheld) {
                            true => assert_eq!(found, Err(Denied::Withheld), "{actor:?} {kind}"),
                            false => assert_eq!(found, authorize(&actor, action, Object::resource(kind)), "{actor:?}"),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn unknown_types_and_the_anonymous_actor_are_refused() {
        for role in Role::ALL {
            assert!(authorize(&staff(role), Action::Read, Object::resource("Nonsense")).is_err());
        }
        let nobody = Actor::anonymous();
        for action in Action::ALL {
            assert_eq!(authorize(&nobody, action, Object::resource("Patient")), Err(Denied::NotLoggedIn));
            assert_eq!(authorize(&nobody, action, Object::OwnSession), Err(Denied::NotLoggedIn));
            assert_eq!(authorize(&nobody, action, Object::Public), Ok(()));
        }
    }
}
