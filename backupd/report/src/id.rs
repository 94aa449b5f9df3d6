//! The only strings that a report may hold: validated ids. None of them admits a space, so none can carry a sentence.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A text that is not the id it should be. The text itself is not repeated: it may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: expected {expected}")]
pub struct IdError {
    kind: &'static str,
    expected: &'static str,
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $expected:literal, $valid:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes the text when it is valid.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                match valid(text) {
                    true => Ok(Self(text.to_owned())),
                    false => Err(IdError { kind: stringify!($name), expected: $expected }),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A report's id: a UUID of version 7 in lower case with hyphens, made by the one who runs the drill.
    ReportId,
    "a UUID of version 7, lower case with hyphens",
    is_uuid_v7
);
id!(
    /// An id that says nothing: 8 to 64 of `0-9 a-f -`, so any UUID or hash in lower-case hex.
    OpaqueId,
    "8 to 64 characters of 0-9, a-f and -",
    |s| (8..=64).contains(&s.len()) && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
);
id!(
    /// A 256-bit hash in lower-case hex.
    Digest,
    "64 characters of 0-9 and a-f",
    |s| s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
);
id!(
    /// A name from the settings (store, site, provider, source): 1 to 64 of `A-Z a-z 0-9 . _ -`.
    Label,
    "1 to 64 characters of A-Z, a-z, 0-9, dot, underscore and hyphen",
    |s| (1..=64).contains(&s.len()) && s.bytes().all(is_label_byte)
);
id!(
    /// A program's version: `1.2.3` or `1.2.3-rc.1` (alpha, beta, rc).
    Version,
    "a version such as 1.2.3 or 1.2.3-rc.1",
    is_version
);
id!(
    /// A FHIR R4 resource type, from the closed list of the standard.
    ResourceType,
    "a resource type of FHIR R4",
    |s| R4_TYPES.binary_search(&s).is_ok()
);

impl Digest {
    /// The hash's hex text.
    pub fn of(bytes: &[u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    /// SHA-256 of some bytes.
    pub fn sha256(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(hex::encode(sha2::Sha256::digest(bytes)))
    }
}

impl Label {
    /// Makes a label of a setting that may hold other characters: each becomes a hyphen, the rest is cut at 64.
    pub fn slug(text: &str) -> Self {
        let slug: String =
            text.chars().map(|c| if c.is_ascii() && is_label_byte(c as u8) { c } else { '-' }).take(64).collect();
        Self(if slug.is_empty() { "-".to_owned() } else { slug })
    }
}

fn is_label_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')
}

fn is_uuid_v7(s: &str) -> bool {
    s.len() == 36
        && s.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            14 => b == b'7',
            19 => matches!(b, b'8' | b'9' | b'a' | b'b'),
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        })
}

fn is_version(s: &str) -> bool {
    let (numbers, pre) = s.split_once('-').map_or((s, None), |(n, p)| (n, Some(p)));
    let number = |n: &str| (1..=6).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit());
    let stage = |p: &str| {
        let (word, n) = p.split_once('.').map_or((p, None), |(w, n)| (w, Some(n)));
        matches!(word, "alpha" | "beta" | "rc") && n.is_none_or(number)
    };
    numbers.split('.').count() == 3 && numbers.split('.').all(number) && pre.is_none_or(stage)
}

/// <https://hl7.org/fhir/R4/resourcelist.html>, in byte order.
const R4_TYPES: &[&str] = &[
    "Account",
    "ActivityDefinition",
    "AdverseEvent",
    "AllergyIntolerance",
    "Appointment",
    "AppointmentResponse",
    "AuditEvent",
    "Basic",
    "Binary",
    "BiologicallyDerivedProduct",
    "BodyStructure",
    "Bundle",
    "CapabilityStatement",
    "CarePlan",
    "CareTeam",
    "CatalogEntry",
    "ChargeItem",
    "ChargeItemDefinition",
    "Claim",
    "ClaimResponse",
    "ClinicalImpression",
    "CodeSystem",
    "Communication",
    "CommunicationRequest",
    "CompartmentDefinition",
    "Composition",
    "ConceptMap",
    "Condition",
    "Consent",
    "Contract",
    "Coverage",
    "CoverageEligibilityRequest",
    "CoverageEligibilityResponse",
    "DetectedIssue",
    "Device",
    "DeviceDefinition",
    "DeviceMetric",
    "DeviceRequest",
    "DeviceUseStatement",
    "DiagnosticReport",
    "DocumentManifest",
    "DocumentReference",
    "EffectEvidenceSynthesis",
    "Encounter",
    "Endpoint",
    "EnrollmentRequest",
    "EnrollmentResponse",
    "EpisodeOfCare",
    "EventDefinition",
    "Evidence",
    "EvidenceVariable",
    "ExampleScenario",
    "ExplanationOfBenefit",
    "FamilyMemberHistory",
    "Flag",
    "Goal",
    "GraphDefinition",
    "Group",
    "GuidanceResponse",
    "HealthcareService",
    "ImagingStudy",
    "Immunization",
    "ImmunizationEvaluation",
    "ImmunizationRecommendation",
    "ImplementationGuide",
    "InsurancePlan",
    "Invoice",
    "Library",
    "Linkage",
    "List",
    "Location",
    "Measure",
    "MeasureReport",
    "Media",
    "Medication",
    "MedicationAdministration",
    "MedicationDispense",
    "MedicationKnowledge",
    "MedicationRequest",
    "MedicationStatement",
    "MedicinalProduct",
    "MedicinalProductAuthorization",
    "MedicinalProductContraindication",
    "MedicinalProductIndication",
    "MedicinalProductIngredient",
    "MedicinalProductInteraction",
    "MedicinalProductManufactured",
    "MedicinalProductPackaged",
    "MedicinalProductPharmaceutical",
    "MedicinalProductUndesirableEffect",
    "MessageDefinition",
    "MessageHeader",
    "MolecularSequence",
    "NamingSystem",
    "NutritionOrder",
    "Observation",
    "ObservationDefinition",
    "OperationDefinition",
    "OperationOutcome",
    "Organization",
    "OrganizationAffiliation",
    "Parameters",
    "Patient",
    "PaymentNotice",
    "PaymentReconciliation",
    "Person",
    "PlanDefinition",
    "Practitioner",
    "PractitionerRole",
    "Procedure",
    "Provenance",
    "Questionnaire",
    "QuestionnaireResponse",
    "RelatedPerson",
    "RequestGroup",
    "ResearchDefinition",
    "ResearchElementDefinition",
    "ResearchStudy",
    "ResearchSubject",
    "RiskAssessment",
    "RiskEvidenceSynthesis",
    "Schedule",
    "SearchParameter",
    "ServiceRequest",
    "Slot",
    "Specimen",
    "SpecimenDefinition",
    "StructureDefinition",
    "StructureMap",
    "Subscription",
    "Substance",
    "SubstanceNucleicAcid",
    "SubstancePolymer",
    "SubstanceProtein",
    "SubstanceReferenceInformation",
    "SubstanceSourceMaterial",
    "SubstanceSpecification",
    "SupplyDelivery",
    "SupplyRequest",
    "Task",
    "TerminologyCapabilities",
    "TestReport",
    "TestScript",
    "ValueSet",
    "VerificationResult",
    "VisionPrescription",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_resource_types_can_be_searched() {
        assert!(R4_TYPES.windows(2).all(|w| w[0] < w[1]));
        assert!(R4_TYPES.len() >= 145, "{}", R4_TYPES.len());
    }

    #[test]
    fn no_id_admits_a_sentence_or_a_name_outside_its_form() {
        for text in ["", " ", "Jane Doe", "jane doe 1970-01-01", "ä", "a\nb", &"a".repeat(65)] {
            assert!(ReportId::parse(text).is_err(), "{text:?}");
            assert!(OpaqueId::parse(text).is_err(), "{text:?}");
            assert!(Digest::parse(text).is_err(), "{text:?}");
            assert!(Label::parse(text).is_err(), "{text:?}");
            assert!(Version::parse(text).is_err(), "{text:?}");
            assert!(ResourceType::parse(text).is_err(), "{text:?}");
        }
        assert!(ResourceType::parse("JaneDoe").is_err());
        assert!(Version::parse("1.2.3-jane").is_err());
        assert!(ReportId::parse("01912d68-783e-4a03-8467-5661c1243ad4").is_err(), "a UUID of version 4");
        assert!(ReportId::parse("01912d68-783e-7a03-8467-5661c1243ad4").is_ok());
        assert!(Version::parse("0.1.0").is_ok() && Version::parse("1.2.3-rc.1").is_ok());
        assert_eq!(Label::slug("Berlin, DC 2").as_str(), "Berlin--DC-2");
        assert!(Label::parse(Label::slug(&"é ".repeat(80)).as_str()).is_ok());
    }
}
