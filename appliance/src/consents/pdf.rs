//! A signed consent as a PDF: text and strokes, with the seal's figures at the end.

use super::{Decision, Mark, Sealed};
use crate::pdf::{LEADING, Pages};

/// The document's bytes.
pub fn document(practice: &str, sealed: &Sealed) -> Vec<u8> {
    let record = &sealed.record;
    let mut pages = Pages::default();
    pages.line("B", 11.0, practice);
    pages.space(LEADING);
    pages.line("B", 15.0, &record.title);
    pages.line("R", 9.0, &format!("Version {} of this text", record.text_version));
    pages.space(LEADING / 2.0);
    pages.paragraph("R", 11.0, &record.body);
    pages.space(LEADING);
    pages.paragraph("R", 11.0, &format!("Patient: {}, born {}", record.patient_name, record.patient_birth));
    if record.decision == Decision::Refused {
        pages.paragraph("B", 11.0, "REFUSED: this text was not agreed to.");
    }
    let done = if record.decision == Decision::Refused { "Refused" } else { "Signed" };
    pages.paragraph("R", 11.0, &format!("{done} by {} ({}) at {}", record.signer, record.relation, record.signed_at));
    if !record.witness.is_empty() {
        pages.paragraph("R", 11.0, &format!("In the presence of {}", record.witness));
    }
    if !record.circumstances.is_empty() {
        pages.paragraph("R", 11.0, &record.circumstances);
    }
    match &record.mark {
        Mark::Drawn(strokes) => pages.strokes(strokes),
        Mark::Typed(name) => pages.paragraph("I", 16.0, name),
    }
    pages.space(LEADING);
    pages.line("B", 9.0, "Seal");
    pages.line("R", 8.0, &format!("Record {} of this practice, device {}", sealed.seq, record.address));
    for (name, bytes) in [
        ("Hash", sealed.hash.as_slice()),
        ("Signature (Ed25519)", &sealed.signature),
        ("Public key", &sealed.public_key),
    ] {
        let digits = hex::encode(bytes);
        let mut rest = digits.as_str();
        pages.line("R", 8.0, &format!("{name}:"));
        while !rest.is_empty() {
            let (row, more) = rest.split_at(rest.len().min(64));
            pages.line("C", 8.0, row);
            rest = more;
        }
    }
    pages.finish()
}

#[cfg(test)]
mod tests {
    use super::super::{Decision, Mark, Record, Sealed};
    use super::*;

    #[test]
    fn the_table_of_a_document_points_to_its_objects() {
        let record = Record {
            consent: "c".into(),
            text_id: "t".into(),
            text_version: 2,
            title: "Photos (face)".into(),
            body: format!("Ich möchte\\ das.\n{}", "word ".repeat(2000)),
            patient: "p".into(),
            patient_name: "Ångström, 李".into(),
            patient_birth: "1960-05-06".into(),
            signer: "J".into(),
            relation: "patient".into(),
            mark: Mark::Drawn(vec![vec![(0, 0), (600, 200)]]),
            signed_at: "2026".into(),
            address: "::1".into(),
            device: "d".into(),
            witness: "w".into(),
            witness_account: "a".into(),
            decision: Decision::Refused,
            circumstances: "In the portal.".into(),
        };
        let sealed =
            Sealed { seq: 1, record, bytes: String::new(), hash: [1; 32], signature: [2; 64], public_key: [3; 32] };
        let bytes = document("Practice", &sealed);
        assert!(bytes.is_ascii(), "letters beyond ASCII are escaped");
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.contains("Photos \\(face\\)")
                && text.contains("m\\366chte\\\\")
                && text.contains("\\305ngstr\\366m, ?")
        );
        let table = text.split("xref\n").nth(1).unwrap();
        for (number, row) in (1..).zip(table.lines().skip(2).take_while(|l| l.ends_with("n "))) {
            let offset: usize = row[..10].parse().unwrap();
            assert!(text[offset..].starts_with(&format!("{number} 0 obj")), "object {number}");
        }
        assert!(text.contains("REFUSED") && text.contains("Refused by J") && text.contains("In the portal."));
        assert!(text.matches("/Type /Page ").count() > 2, "a long text has several pages");
    }
}
