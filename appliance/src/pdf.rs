//! PDF by hand: text and strokes on pages of A4. The standard fonts need no file, and nothing in it runs.

use std::fmt::Write;

const WIDTH: f64 = 595.0;
const HEIGHT: f64 = 842.0;
const MARGIN: f64 = 60.0;
pub const LEADING: f64 = 15.0;
/// Characters of a line at 11 points; Helvetica's average letter is half as wide as high.
const LINE_CHARS: usize = 84;

/// A document while it is written. Fonts: `R` regular, `B` bold, `I` italic, `C` with letters of one width.
pub struct Pages {
    done: Vec<String>,
    now: String,
    y: f64,
}

impl Default for Pages {
    fn default() -> Pages {
        Pages { done: Vec::new(), now: String::new(), y: HEIGHT - MARGIN }
    }
}

impl Pages {
    /// Begins a page where less than `height` is left.
    pub fn room(&mut self, height: f64) {
        if self.y - height < MARGIN {
            self.done.push(std::mem::take(&mut self.now));
            self.y = HEIGHT - MARGIN;
        }
    }

    pub fn space(&mut self, height: f64) {
        self.y -= height;
    }

    pub fn line(&mut self, font: &str, size: f64, text: &str) {
        self.room(LEADING);
        self.y -= LEADING;
        let _ = writeln!(self.now, "BT /{font} {size} Tf {MARGIN} {:.1} Td ({}) Tj ET", self.y, encoded(text));
    }

    /// Text that is broken between words.
    pub fn paragraph(&mut self, font: &str, size: f64, text: &str) {
        for line in text.lines() {
            let mut row = String::new();
            for word in line.split(' ') {
                if row.chars().count() + word.chars().count() + 1 > LINE_CHARS && !row.is_empty() {
                    self.line(font, size, &row);
                    row.clear();
                }
                if !row.is_empty() {
                    row.push(' ');
                }
                row.push_str(word);
            }
            self.line(font, size, &row);
        }
    }

    /// Strokes in a field of 600 by 200, drawn at half the size.
    pub fn strokes(&mut self, strokes: &[Vec<(u16, u16)>]) {
        self.room(110.0);
        self.y -= 105.0;
        let _ = writeln!(self.now, "0.7 w 0.6 G {MARGIN} {:.1} 300 100 re S 1.4 w 0 G 1 J 1 j", self.y);
        for stroke in strokes {
            for (index, (x, y)) in stroke.iter().enumerate() {
                let (x, y) = (MARGIN + f64::from(*x) / 2.0, self.y + 100.0 - f64::from(*y) / 2.0);
                let _ = write!(self.now, "{x:.1} {y:.1} {} ", if index == 0 { "m" } else { "l" });
            }
            let _ = writeln!(self.now, "S");
        }
    }

    /// The document's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.done.push(self.now);
        assemble(&self.done)
    }
}

/// A string in the fonts' encoding (Windows-1252); letters outside of it become a question mark. The sealed record beside it
/// holds every letter.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let byte = match c {
            ' '..='~' => c as u32,
            '\u{a0}'..='\u{ff}' => c as u32,
            '€' => 0x80,
            '„' => 0x84,
            '…' => 0x85,
            '‘' => 0x91,
            '’' => 0x92,
            '“' => 0x93,
            '”' => 0x94,
            '•' => 0x95,
            '–' => 0x96,
            '—' => 0x97,
            _ => 0x3f,
        };
        match byte {
            0x28 | 0x29 | 0x5c => out.extend(['\\', c]),
            0x20..=0x7e => out.push(char::from(byte as u8)),
            byte => {
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out
}

fn assemble(pages: &[String]) -> Vec<u8> {
    const FIRST_PAGE: usize = 7;
    let kids: String = (0..pages.len()).map(|n| format!("{} 0 R ", FIRST_PAGE + 2 * n)).collect();
    let font = |name: &str| format!("<< /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>");
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Kids [{kids}] /Count {} >>", pages.len()),
        font("Helvetica"),
        font("Helvetica-Bold"),
        font("Times-Italic"),
        font("Courier"),
    ];
    for (n, content) in pages.iter().enumerate() {
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {WIDTH} {HEIGHT}] /Contents {} 0 R \
             /Resources << /Font << /R 3 0 R /B 4 0 R /I 5 0 R /C 6 0 R >> >> >>",
            FIRST_PAGE + 2 * n + 1
        ));
        objects.push(format!("<< /Length {} >>\nstream\n{content}endstream", content.len()));
    }
    let mut out = String::from("%PDF-1.4\n");
    let mut offsets = Vec::with_capacity(objects.len());
    for (number, object) in (1..).zip(&objects) {
        offsets.push(out.len());
        let _ = write!(out, "{number} 0 obj\n{object}\nendobj\n");
    }
    let start = out.len();
    let _ = write!(out, "xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for offset in offsets {
        let _ = writeln!(out, "{offset:010} 00000 n ");
    }
    let _ = write!(out, "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n", objects.len() + 1);
    out.into_bytes()
}
