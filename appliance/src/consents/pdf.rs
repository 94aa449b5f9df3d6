//! A signed consent as a PDF: text and strokes, with the seal's figures at the end.

use super::{Decision, Mark, Sealed};
use crate::pdf::{LEADING, Pages, PdfError};

/// The document's bytes: the same for the same record.
pub fn document(practice: &str, sealed: &Sealed) -> Result<Vec<u8>, PdfError> {
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
    pages.finish("The sealed record holds every letter: ask the practice to show it on the screen.")
}

#[cfg(test)]
mod tests {
    use super::super::{Decision, Mark, Record, Sealed};
    use super::*;
    use crate::pdf::NO_GLYPH;
    use crate::pdf::tests::read;

    fn sealed(body: &str, patient_name: &str, mark: Mark) -> Sealed {
        let record = Record {
            consent: "c".into(),
            text_id: "t".into(),
            text_version: 2,
            title: "Photos (face)".into(),
            body: body.into(),
            patient: "p".into(),
            patient_name: patient_name.into(),
            patient_birth: "1960-05-06".into(),
            signer: "J".into(),
            relation: "patient".into(),
            mark,
            signed_at: "2026".into(),
            address: "::1".into(),
            device: "d".into(),
            witness: "w".into(),
            witness_account: "a".into(),
            decision: Decision::Refused,
            circumstances: "In the portal.".into(),
        };
        Sealed { seq: 1, record, bytes: String::new(), hash: [1; 32], signature: [2; 64], public_key: [3; 32] }
    }

    #[test]
    fn a_consent_says_what_was_signed_in_the_letters_of_whoever_signed() {
        let names = "Małgorzata Żółć, Dvořák, Ștefan, İnönü, Ιωάννης, Щербак, Nguyễn";
        let mark = Mark::Drawn(vec![vec![(0, 0), (600, 200)], vec![(5, 5)]]);
        let made = sealed(&format!("Ich möchte\\ das.\n{}", "word ".repeat(2000)), names, mark);
        let bytes = document("Praktyka Łódź", &made).unwrap();
        let words = read(&bytes);
        for said in
            [names, "Praktyka Łódź", "Photos (face)", "Ich möchte\\ das.", "REFUSED", "Refused by J", "In the portal."]
        {
            assert!(words.contains(said), "{said}: {words}");
        }
        assert!(!words.contains(NO_GLYPH) && words.contains(&"01".repeat(32)), "{words}");
        assert!(lopdf::Document::load_mem(&bytes).unwrap().get_pages().len() > 2, "a long text has several pages");
        assert!(bytes.len() < 100_000, "{} bytes", bytes.len());
        assert_eq!(bytes, document("Praktyka Łódź", &made).unwrap(), "the same record, the same bytes");
    }

    #[test]
    fn a_letter_that_no_font_has_is_marked_and_the_document_says_what_to_do() {
        let bytes = document("Practice", &sealed("Yes.", "Lee, 李", Mark::Typed("李 Lee".into()))).unwrap();
        let words = read(&bytes);
        assert!(words.contains("Lee, □") && words.contains("ask the practice to show it"), "{words}");
        let bytes = document("Practice", &sealed("Yes.", "Lee", Mark::Typed("Lee".into()))).unwrap();
        assert!(!read(&bytes).contains("ask the practice"));
    }
}
