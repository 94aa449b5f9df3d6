//! What a made-up practice is made of. Codes are SNOMED CT and RxNorm ones that the sample data uses too.

pub const GIVEN: [&str; 36] = [
    "Ada", "Bruno", "Chiara", "Daniel", "Elif", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Katja", "Liam", "Mara",
    "Noah", "Olga", "Pavel", "Quentin", "Rosa", "Samir", "Tessa", "Umut", "Vera", "Wanda", "Xenia", "Yusuf", "Zoe",
    "Aaron", "Berta", "Carl", "Dora", "Emil", "Frida", "Georg", "Hanna", "Ivan", "Jule",
];

/// Those of [`GIVEN`] that men bear here.
pub const MALE: [&str; 17] = [
    "Bruno", "Daniel", "Felix", "Hugo", "Jonas", "Liam", "Noah", "Pavel", "Quentin", "Samir", "Umut", "Yusuf", "Aaron",
    "Carl", "Emil", "Georg", "Ivan",
];

pub const FAMILY: [&str; 36] = [
    "Abel",
    "Brandt",
    "Castillo",
    "Dietz",
    "Engel",
    "Fontaine",
    "Gruber",
    "Horvat",
    "Iversen",
    "Jansen",
    "Keller",
    "Lorenz",
    "Mejía",
    "Novak",
    "Okafor",
    "Petrov",
    "Quist",
    "Rossi",
    "Sommer",
    "Tanaka",
    "Ulrich",
    "Vogel",
    "Weber",
    "Yilmaz",
    "Zeller",
    "Ångström",
    "Bauer",
    "Costa",
    "Dahl",
    "Esposito",
    "Fischer",
    "Garcia",
    "Hoffmann",
    "Ilić",
    "Jung",
    "Kowalski",
];

pub const STREETS: [&str; 8] = [
    "Mill Lane",
    "Station Road",
    "Harbour Street",
    "Oak Avenue",
    "Church Hill",
    "Garden Row",
    "Bridge Street",
    "Elm Close",
];

pub const CITIES: [(&str, &str); 4] =
    [("Northfield", "01060"), ("Eastbrook", "01075"), ("Westmere", "01089"), ("Southgate", "01020")];

pub const SPECIALTIES: [&str; 4] = ["General practice", "Internal medicine", "Pediatrics", "Cardiology"];

/// `(SNOMED CT code, words, treatment as an index into MEDICATIONS)`.
pub const PROBLEMS: [(&str, &str, usize); 8] = [
    ("59621000", "Hypertension", 0),
    ("44054006", "Diabetes mellitus type 2", 1),
    ("195967001", "Asthma", 2),
    ("55822004", "Hyperlipidemia", 3),
    ("40930008", "Hypothyroidism", 4),
    ("37796009", "Migraine", 5),
    ("235595009", "Gastroesophageal reflux disease", 6),
    ("396275006", "Osteoarthritis", 7),
];

/// `(RxNorm code, words, directions)`.
pub const MEDICATIONS: [(&str, &str, &str); 8] = [
    ("314076", "Lisinopril 10 MG Oral Tablet", "one tablet in the morning"),
    ("860975", "Metformin 500 MG Extended Release Oral Tablet", "one tablet with the evening meal"),
    ("745679", "Albuterol 0.09 MG/ACTUAT Metered Dose Inhaler", "two puffs when short of breath"),
    ("617312", "Atorvastatin 20 MG Oral Tablet", "one tablet at night"),
    ("966222", "Levothyroxine 0.075 MG Oral Tablet", "one tablet before breakfast"),
    ("313782", "Acetaminophen 325 MG Oral Tablet", "two tablets when in pain, eight a day at most"),
    ("198051", "Omeprazole 20 MG Oral Capsule", "one capsule before breakfast"),
    ("310965", "Ibuprofen 200 MG Oral Tablet", "one tablet with food when in pain"),
];

/// `(SNOMED CT code, words, criticality, reaction)`.
pub const ALLERGIES: [(&str, &str, &str, &str); 6] = [
    ("91936005", "Allergy to penicillin", "high", "Anaphylaxis"),
    ("91935009", "Allergy to peanuts", "high", "Swelling of the face"),
    ("300916003", "Latex allergy", "low", "Itching"),
    ("418689008", "Allergy to grass pollen", "low", "Sneezing"),
    ("293586001", "Allergy to aspirin", "low", "Hives"),
    ("300913006", "Shellfish allergy", "high", "Wheezing"),
];

pub const REASONS: [&str; 8] = [
    "Check-up",
    "Follow-up of blood pressure",
    "Cough for two weeks",
    "Back pain",
    "Review of laboratory results",
    "Vaccination",
    "Headache",
    "Prescription renewal",
];

pub const FINDINGS: [&str; 6] = [
    "Lungs clear, heart sounds regular, no edema.",
    "Throat slightly red, no swollen nodes, temperature normal.",
    "Full range of motion with pain at the end of flexion.",
    "Abdomen soft, no tenderness, bowel sounds present.",
    "Alert and oriented, no focal deficit.",
    "Skin dry, no rash, well hydrated.",
];

pub const PLANS: [&str; 6] = [
    "Continue the present treatment; see again in three months.",
    "Blood count and lipids ordered; results by telephone.",
    "Rest and fluids; come back if no better in one week.",
    "Physiotherapy, six sessions; exercises shown.",
    "Dose unchanged; home readings in a diary.",
    "Referral written; appointment at the front desk.",
];
