//! The search parameters, as a table: what the capability statement declares, the index holds and a search accepts.

/// How a parameter's values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Token,
    String,
    Date,
    Reference,
}

impl Form {
    /// The word in a capability statement.
    pub fn as_str(self) -> &'static str {
        match self {
            Form::Token => "token",
            Form::String => "string",
            Form::Date => "date",
            Form::Reference => "reference",
        }
    }
}

/// One search parameter of one type.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    pub kind: &'static str,
    pub name: &'static str,
    pub form: Form,
    /// Element paths below the resource, with arrays passed through.
    pub paths: &'static [&'static str],
}

/// Parameters of every type, besides `patient` (the compartment), `_id` and `_lastUpdated`.
pub const PARAMS: &[Param] = &[
    token("Patient", "identifier", &["identifier"]),
    string("Patient", "name", &["name"]),
    string("Patient", "family", &["name.family"]),
    string("Patient", "given", &["name.given"]),
    date("Patient", "birthdate", &["birthDate"]),
    token("Patient", "gender", &["gender"]),
    token("Patient", "phone", &["telecom"]),
    string("Patient", "address", &["address"]),
    token("Patient", "active", &["active"]),
    token("Practitioner", "identifier", &["identifier"]),
    string("Practitioner", "name", &["name"]),
    string("Practitioner", "family", &["name.family"]),
    token("Practitioner", "active", &["active"]),
    token("PractitionerRole", "identifier", &["identifier"]),
    reference("PractitionerRole", "practitioner", &["practitioner"]),
    reference("PractitionerRole", "organization", &["organization"]),
    token("PractitionerRole", "specialty", &["specialty"]),
    token("Organization", "identifier", &["identifier"]),
    string("Organization", "name", &["name", "alias"]),
    string("Organization", "address", &["address"]),
    token("Location", "identifier", &["identifier"]),
    string("Location", "name", &["name", "alias"]),
    string("Location", "address", &["address"]),
    string("HealthcareService", "name", &["name"]),
    token("HealthcareService", "identifier", &["identifier"]),
    token("RelatedPerson", "identifier", &["identifier"]),
    string("RelatedPerson", "name", &["name"]),
    token("Encounter", "identifier", &["identifier"]),
    token("Encounter", "status", &["status"]),
    token("Encounter", "class", &["class"]),
    token("Encounter", "type", &["type"]),
    date("Encounter", "date", &["period"]),
    reference("Encounter", "participant", &["participant.individual"]),
    reference("Encounter", "appointment", &["appointment"]),
    token("Condition", "code", &["code"]),
    token("Condition", "category", &["category"]),
    token("Condition", "clinical-status", &["clinicalStatus"]),
    date("Condition", "onset-date", &["onsetDateTime", "onsetPeriod"]),
    date("Condition", "recorded-date", &["recordedDate"]),
    reference("Condition", "encounter", &["encounter"]),
    token("AllergyIntolerance", "code", &["code", "reaction.substance"]),
    token("AllergyIntolerance", "clinical-status", &["clinicalStatus"]),
    date("AllergyIntolerance", "date", &["recordedDate"]),
    token("MedicationRequest", "status", &["status"]),
    token("MedicationRequest", "intent", &["intent"]),
    token("MedicationRequest", "code", &["medicationCodeableConcept"]),
    date("MedicationRequest", "authoredon", &["authoredOn"]),
    reference("MedicationRequest", "encounter", &["encounter"]),
    reference("MedicationRequest", "requester", &["requester"]),
    token("MedicationDispense", "status", &["status"]),
    token("Immunization", "status", &["status"]),
    token("Immunization", "vaccine-code", &["vaccineCode"]),
    date("Immunization", "date", &["occurrenceDateTime"]),
    token("Observation", "code", &["code"]),
    token("Observation", "category", &["category"]),
    token("Observation", "status", &["status"]),
    date("Observation", "date", &["effectiveDateTime", "effectivePeriod", "effectiveInstant"]),
    reference("Observation", "encounter", &["encounter"]),
    token("DiagnosticReport", "code", &["code"]),
    token("DiagnosticReport", "category", &["category"]),
    token("DiagnosticReport", "status", &["status"]),
    date("DiagnosticReport", "date", &["effectiveDateTime", "effectivePeriod"]),
    reference("DiagnosticReport", "encounter", &["encounter"]),
    token("Procedure", "code", &["code"]),
    token("Procedure", "status", &["status"]),
    date("Procedure", "date", &["performedDateTime", "performedPeriod"]),
    reference("Procedure", "encounter", &["encounter"]),
    token("ServiceRequest", "code", &["code"]),
    token("ServiceRequest", "category", &["category"]),
    token("ServiceRequest", "status", &["status"]),
    date("ServiceRequest", "authored", &["authoredOn"]),
    token("ImagingStudy", "identifier", &["identifier"]),
    token("ImagingStudy", "status", &["status"]),
    date("ImagingStudy", "started", &["started"]),
    reference("ImagingStudy", "encounter", &["encounter"]),
    token("CarePlan", "category", &["category"]),
    token("CarePlan", "status", &["status"]),
    date("CarePlan", "date", &["period"]),
    reference("CarePlan", "encounter", &["encounter"]),
    token("CareTeam", "status", &["status"]),
    token("CareTeam", "category", &["category"]),
    token("Goal", "lifecycle-status", &["lifecycleStatus"]),
    token("Goal", "category", &["category"]),
    token("Device", "type", &["type"]),
    token("Device", "identifier", &["identifier"]),
    token("Composition", "type", &["type"]),
    token("Composition", "status", &["status"]),
    date("Composition", "date", &["date"]),
    reference("Composition", "encounter", &["encounter"]),
    token("DocumentReference", "identifier", &["identifier", "masterIdentifier"]),
    token("DocumentReference", "type", &["type"]),
    token("DocumentReference", "category", &["category"]),
    token("DocumentReference", "status", &["status"]),
    date("DocumentReference", "date", &["date"]),
    date("DocumentReference", "period", &["context.period"]),
    reference("DocumentReference", "encounter", &["context.encounter"]),
    reference("DocumentReference", "author", &["author"]),
    reference("DocumentReference", "relatesto", &["relatesTo.target"]),
    token("Questionnaire", "status", &["status"]),
    token("Questionnaire", "url", &["url"]),
    token("QuestionnaireResponse", "status", &["status"]),
    reference("QuestionnaireResponse", "encounter", &["encounter"]),
    date("QuestionnaireResponse", "authored", &["authored"]),
    token("Consent", "status", &["status"]),
    token("Consent", "category", &["category"]),
    date("Consent", "date", &["dateTime"]),
    reference("Provenance", "target", &["target"]),
    reference("Schedule", "actor", &["actor"]),
    reference("Slot", "schedule", &["schedule"]),
    date("Slot", "start", &["start"]),
    token("Slot", "status", &["status"]),
    token("Appointment", "status", &["status"]),
    token("Appointment", "identifier", &["identifier"]),
    date("Appointment", "date", &["start"]),
    reference("Appointment", "actor", &["participant.actor"]),
    reference("Appointment", "practitioner", &["participant.actor"]),
    reference("AppointmentResponse", "appointment", &["appointment"]),
    token("Task", "status", &["status"]),
    token("Task", "code", &["code"]),
    reference("Task", "owner", &["owner"]),
    reference("Task", "focus", &["focus"]),
    token("Communication", "status", &["status"]),
    token("Coverage", "identifier", &["identifier"]),
    token("Coverage", "status", &["status"]),
    token("Claim", "identifier", &["identifier"]),
    token("Claim", "status", &["status"]),
    token("Claim", "use", &["use"]),
    date("Claim", "created", &["created"]),
    reference("Claim", "encounter", &["item.encounter"]),
    reference("Claim", "provider", &["provider"]),
    reference("ClaimResponse", "request", &["request"]),
    token("ExplanationOfBenefit", "identifier", &["identifier"]),
    token("ExplanationOfBenefit", "status", &["status"]),
    date("ExplanationOfBenefit", "created", &["created"]),
    reference("ExplanationOfBenefit", "claim", &["claim"]),
    reference("ExplanationOfBenefit", "encounter", &["item.encounter"]),
    token("Account", "identifier", &["identifier"]),
    token("Account", "status", &["status"]),
    token("ChargeItem", "code", &["code"]),
    token("ChargeItem", "status", &["status"]),
    token("Invoice", "identifier", &["identifier"]),
    token("Invoice", "status", &["status"]),
    date("Invoice", "date", &["date"]),
    token("Basic", "code", &["code"]),
];

/// The parameters of one type.
pub fn of(kind: &str) -> impl Iterator<Item = &'static Param> {
    PARAMS.iter().filter(move |param| param.kind == kind)
}

const fn token(kind: &'static str, name: &'static str, paths: &'static [&'static str]) -> Param {
    Param { kind, name, form: Form::Token, paths }
}

const fn string(kind: &'static str, name: &'static str, paths: &'static [&'static str]) -> Param {
    Param { kind, name, form: Form::String, paths }
}

const fn date(kind: &'static str, name: &'static str, paths: &'static [&'static str]) -> Param {
    Param { kind, name, form: Form::Date, paths }
}

const fn reference(kind: &'static str, name: &'static str, paths: &'static [&'static str]) -> Param {
    Param { kind, name, form: Form::Reference, paths }
}
