//! What belongs to a patient, by R4's definition of the patient compartment: the elements of each type that name whose a resource
//! is. A type that is not here belongs to no patient.

use serde_json::Value;

/// Types with their elements.
const ELEMENTS: &[(&str, &[&str])] = &[
    ("Account", &["subject"]),
    ("AdverseEvent", &["subject"]),
    ("AllergyIntolerance", &["patient", "recorder", "asserter"]),
    ("Appointment", &["participant.actor"]),
    ("AppointmentResponse", &["actor"]),
    ("Basic", &["subject", "author"]),
    ("BodyStructure", &["patient"]),
    ("CarePlan", &["subject", "activity.detail.performer"]),
    ("CareTeam", &["subject", "participant.member"]),
    ("ChargeItem", &["subject"]),
    ("Claim", &["patient", "payee.party"]),
    ("ClaimResponse", &["patient"]),
    ("ClinicalImpression", &["subject"]),
    ("Communication", &["subject", "sender", "recipient"]),
    ("CommunicationRequest", &["subject", "sender", "recipient", "requester"]),
    ("Composition", &["subject", "author", "attester.party"]),
    ("Condition", &["subject", "asserter"]),
    ("Consent", &["patient"]),
    ("Coverage", &["policyHolder", "subscriber", "beneficiary", "payor"]),
    ("CoverageEligibilityRequest", &["patient"]),
    ("CoverageEligibilityResponse", &["patient"]),
    ("DetectedIssue", &["patient"]),
    ("DeviceRequest", &["subject", "performer"]),
    ("DeviceUseStatement", &["subject"]),
    ("DiagnosticReport", &["subject"]),
    ("DocumentManifest", &["subject", "author", "recipient"]),
    ("DocumentReference", &["subject", "author"]),
    ("Encounter", &["subject"]),
    ("EnrollmentRequest", &["candidate"]),
    ("EpisodeOfCare", &["patient"]),
    ("ExplanationOfBenefit", &["patient", "payee.party"]),
    ("FamilyMemberHistory", &["patient"]),
    ("Flag", &["subject"]),
    ("Goal", &["subject"]),
    ("Group", &["member.entity"]),
    ("ImagingStudy", &["subject"]),
    ("Immunization", &["patient"]),
    ("ImmunizationEvaluation", &["patient"]),
    ("ImmunizationRecommendation", &["patient"]),
    ("Invoice", &["subject", "recipient"]),
    ("List", &["subject", "source"]),
    ("MeasureReport", &["subject"]),
    ("Media", &["subject"]),
    ("MedicationAdministration", &["subject", "performer.actor"]),
    ("MedicationDispense", &["subject", "receiver"]),
    ("MedicationRequest", &["subject"]),
    ("MedicationStatement", &["subject"]),
    ("MolecularSequence", &["patient"]),
    ("NutritionOrder", &["patient"]),
    ("Observation", &["subject", "performer"]),
    ("Patient", &["link.other"]),
    ("Person", &["link.target"]),
    ("Procedure", &["subject", "performer.actor"]),
    ("Provenance", &["target"]),
    ("QuestionnaireResponse", &["subject", "author"]),
    ("RelatedPerson", &["patient"]),
    ("RequestGroup", &["subject", "action.participant"]),
    ("ResearchSubject", &["individual"]),
    ("RiskAssessment", &["subject"]),
    ("Schedule", &["actor"]),
    ("ServiceRequest", &["subject", "performer"]),
    ("Specimen", &["subject"]),
    ("SupplyDelivery", &["patient"]),
    // To whom it is delivered, by R4; who asks for it is told in it as well.
    ("SupplyRequest", &["deliverTo", "requester"]),
    ("VisionPrescription", &["patient"]),
];

/// The types that belong to patients.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    ELEMENTS.iter().map(|(kind, _)| *kind)
}

/// The patients to whom a resource belongs, as `Patient/id`, each once.
pub fn patients<'v>(kind: &str, body: &'v Value) -> Vec<&'v str> {
    let elements = ELEMENTS.iter().find(|(named, _)| *named == kind).map_or(&[][..], |(_, elements)| *elements);
    let mut found = Vec::new();
    for element in elements {
        let steps: Vec<&str> = element.split('.').collect();
        visit(body, &steps, &mut |value| {
            let named = value.get("reference").and_then(Value::as_str);
            let named = named.and_then(|reference| reference.split("/_history/").next());
            found.extend(named.filter(|reference| reference.starts_with("Patient/")));
        });
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn visit<'v>(value: &'v Value, steps: &[&str], found: &mut dyn FnMut(&'v Value)) {
    match (value, steps.split_first()) {
        (Value::Array(items), _) => items.iter().for_each(|item| visit(item, steps, found)),
        (value, None) => found(value),
        (value, Some((step, rest))) => {
            if let Some(inner) = value.get(step) {
                visit(inner, rest, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_type_is_kept_and_every_element_is_one_that_it_has() {
        for (kind, elements) in ELEMENTS.iter() {
            assert!(crate::fhir::types::is_kept(kind), "{kind}");
            for element in *elements {
                let (first, _) = element.split_once('.').unwrap_or((element, ""));
                let known = crate::fhir::definition::of(kind).unwrap().elements.iter().any(|known| known.name == first);
                assert!(known, "{kind}.{first}");
            }
        }
    }

    #[test]
    fn all_who_are_named_are_found_whatever_is_around_them() {
        let body = json!({"participant": [{"actor": {"reference": "Practitioner/a"}}, {"actor": {"reference": "Patient/b"}}, 5,
            {"actor": {"reference": "Patient/c/_history/2"}}, {"actor": {"reference": 7}}, {"actor": [{"reference": "Patient/b"}]}]});
        assert_eq!(patients("Appointment", &body), ["Patient/b", "Patient/c"]);
        assert!(patients("Practitioner", &body).is_empty() && patients("Appointment", &json!([null])).is_empty());
    }
}
