//! A one-page PDF of plain text: a real file for the documents of a made-up chart.

/// Lines on the page at most; the rest is left out.
const LINES_MAX: usize = 50;

/// A PDF 1.4 file with `lines` in Helvetica on an A4 page. Letters outside ASCII become `?`: the font's encoding is not
/// worth more here.
pub fn page(lines: &[String]) -> Vec<u8> {
    let mut content = String::from("BT /F1 11 Tf 60 780 Td 15 TL\n");
    for line in lines.iter().take(LINES_MAX) {
        let mut escaped = String::new();
        for c in line.chars() {
            match c {
                '(' | ')' | '\\' => escaped.extend(['\\', c]),
                ' '..='~' => escaped.push(c),
                _ => escaped.push('?'),
            }
        }
        content.push_str(&format!("({escaped}) Tj T*\n"));
    }
    content.push_str("ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R \
         /Resources << /Font << /F1 5 0 R >> >> >>"
            .to_owned(),
        format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let mut file = String::from("%PDF-1.4\n");
    let mut table = String::from("0000000000 65535 f \n");
    for (number, object) in (1..).zip(&objects) {
        table.push_str(&format!("{:010} 00000 n \n", file.len()));
        file.push_str(&format!("{number} 0 obj\n{object}\nendobj\n"));
    }
    let start = file.len();
    let size = objects.len() + 1;
    file.push_str(&format!(
        "xref\n0 {size}\n{table}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    ));
    file.into_bytes()
}
