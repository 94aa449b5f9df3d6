//! PDF: text and strokes on pages of A4. What is drawn depends on nothing but what was asked for: the same calls make the
//! same bytes.

mod text;

use krilla::Document;
use krilla::color::luma;
use krilla::geom::{Path, PathBuilder, Point, Rect};
use krilla::page::PageSettings;
use krilla::paint::{LineCap, LineJoin, Stroke};
use krilla::surface::Surface;
pub use text::NO_GLYPH;
use text::{Face, Row};

const WIDTH: f32 = 595.0;
const HEIGHT: f32 = 842.0;
const MARGIN: f32 = 60.0;
pub const LEADING: f32 = 15.0;

/// The fonts are part of the program, so this tells of a defect of it.
#[derive(Debug, thiserror::Error)]
#[error("the PDF could not be made")]
pub struct PdfError;

/// A document while it is written. Fonts: `R` regular, `B` bold, `I` italic, `C` with letters of one width; sizes and heights are
/// in points.
pub struct Pages {
    done: Vec<Vec<Drawn>>,
    now: Vec<Drawn>,
    /// How far down the page is written.
    y: f32,
    missing: bool,
}

enum Drawn {
    Row { x: f32, y: f32, size: f32, row: Row },
    Line { path: Path, width: f32, gray: u8 },
}

impl Default for Pages {
    fn default() -> Pages {
        Pages { done: Vec::new(), now: Vec::new(), y: MARGIN, missing: false }
    }
}

impl Pages {
    /// Begins a page where less than `height` is left.
    pub fn room(&mut self, height: f32) {
        if self.y + height > HEIGHT - MARGIN {
            self.done.push(std::mem::take(&mut self.now));
            self.y = MARGIN;
        }
    }

    pub fn space(&mut self, height: f32) {
        self.y += height;
    }

    /// One paragraph, broken between words where it is wider than the page. It begins at the side at which its first letter is read.
    pub fn line(&mut self, font: &str, size: f32, text: &str) {
        let set = text::set(text, Face::named(font), size, WIDTH - 2.0 * MARGIN);
        self.missing |= set.missing;
        for row in set.rows {
            let leading = LEADING.max(size * 1.3);
            self.room(leading);
            self.y += leading;
            let x = if set.right_to_left { WIDTH - MARGIN - row.width * size } else { MARGIN };
            self.now.push(Drawn::Row { x, y: self.y, size, row });
        }
    }

    /// Paragraphs, one for each line of the text.
    pub fn paragraph(&mut self, font: &str, size: f32, text: &str) {
        for line in text.lines() {
            self.line(font, size, line);
        }
    }

    /// Strokes in a field of 600 by 200, drawn at half the size.
    pub fn strokes(&mut self, strokes: &[Vec<(u16, u16)>]) {
        self.room(110.0);
        self.y += 105.0;
        let top = self.y - 100.0;
        let frame = Rect::from_xywh(MARGIN, top, 300.0, 100.0).and_then(|field| {
            let mut frame = PathBuilder::new();
            frame.push_rect(field);
            frame.finish()
        });
        let drawn = strokes.iter().filter_map(|stroke| {
            let mut points = stroke.iter().map(|(x, y)| (MARGIN + f32::from(*x) / 2.0, top + f32::from(*y) / 2.0));
            let (x, y) = points.next()?;
            let mut path = PathBuilder::new();
            path.move_to(x, y);
            // A dot has a width as well.
            path.line_to(x + 0.1, y);
            points.for_each(|(x, y)| path.line_to(x, y));
            path.finish()
        });
        self.now.extend(frame.map(|path| Drawn::Line { path, width: 0.7, gray: 153 }));
        self.now.extend(drawn.map(|path| Drawn::Line { path, width: 1.4, gray: 0 }));
    }

    /// The document's bytes. `whole` says where every letter is found, for a text that these fonts cannot print.
    pub fn finish(mut self, whole: &str) -> Result<Vec<u8>, PdfError> {
        if self.missing {
            self.space(LEADING);
            let note = format!("{} in this document stands for a letter that its fonts do not have. {whole}", NO_GLYPH);
            self.paragraph("B", 9.0, &note);
        }
        self.done.push(self.now);
        let mut document = Document::new();
        let settings = PageSettings::from_wh(WIDTH, HEIGHT).ok_or(PdfError)?;
        for drawn in &self.done {
            let mut page = document.start_page_with(settings.clone());
            let mut surface = page.surface();
            for one in drawn {
                draw(&mut surface, one);
            }
            surface.finish();
            page.finish();
        }
        document.finish().map_err(|_| PdfError)
    }
}

fn draw(surface: &mut Surface<'_>, drawn: &Drawn) {
    match drawn {
        Drawn::Row { x, y, size, row } => {
            surface.set_stroke(None);
            let mut x = *x;
            for run in &row.runs {
                if let Some(font) = run.face.embedded() {
                    surface.draw_glyphs(Point::from_xy(x, *y), &run.glyphs, font, &run.text, *size, false);
                }
                x += run.width * size;
            }
        }
        Drawn::Line { path, width, gray } => {
            surface.set_stroke(Some(Stroke {
                paint: luma::Color::new(*gray).into(),
                width: *width,
                line_cap: LineCap::Round,
                line_join: LineJoin::Round,
                ..Stroke::default()
            }));
            surface.draw_path(path);
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The text of a document, as a reader of PDF that is not ours finds it: rows as lines, parts of a row put together.
    pub fn read(bytes: &[u8]) -> String {
        let document = lopdf::Document::load_mem(bytes).unwrap();
        let pages: Vec<u32> = document.get_pages().keys().copied().collect();
        let words = document.extract_text(&pages).unwrap();
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn one(font: &str, text: &str) -> String {
        let mut pages = Pages::default();
        pages.paragraph(font, 11.0, text);
        read(&pages.finish("Look there.").unwrap())
    }

    #[test]
    fn every_font_prints_every_alphabet_that_it_or_the_regular_one_has() {
        for font in ["R", "B", "I", "C"] {
            for text in ["Łódź", "Plzeň", "Iğdır", "Ősz", "Ωμέγα", "Ёжик", "Њ", "€ „a“ – …", "Հայ", "ქართ"]
            {
                assert_eq!(one(font, text), text, "{font}");
            }
        }
    }

    #[test]
    fn what_is_read_from_the_right_is_drawn_from_the_right() {
        // The reader gives what is drawn from the left to the right.
        let drawn = one("R", "Name: שלום 12 x");
        assert_eq!(drawn.replace(' ', ""), "Name:12םולשx", "{drawn}");
        let paragraph = text::set("שלום 12, x", Face::Regular, 11.0, 400.0);
        assert!(paragraph.right_to_left && !paragraph.missing);
        let latin = text::set("x, שלום", Face::Regular, 11.0, 400.0);
        assert!(!latin.right_to_left);
        // Arabic letters join: the shape in a word is another one than that of a letter alone.
        let glyphs = |words: &str| -> Vec<u32> {
            let set = text::set(words, Face::Regular, 11.0, 400.0);
            set.rows[0].runs.iter().flat_map(|run| &run.glyphs).map(|glyph| glyph.glyph_id.to_u32()).collect()
        };
        let alone = [glyphs("م"), glyphs("ح"), glyphs("د")].concat();
        let joined = glyphs("محد");
        assert!(joined.iter().all(|glyph| *glyph != 0) && joined.iter().rev().ne(alone.iter()), "{joined:?} {alone:?}");
    }

    #[test]
    fn rows_are_as_wide_as_the_page_at_most_and_nothing_is_lost() {
        for text in ["word ".repeat(400), "W".repeat(500), "a b  c\td ".repeat(90), "漢字 ".repeat(300)] {
            let set = text::set(&text, Face::Bold, 11.0, 475.0);
            assert!(set.rows.len() > 1 && set.rows.iter().all(|row| row.width * 11.0 <= 475.0));
            let letters: usize =
                set.rows.iter().flat_map(|row| &row.runs).map(|run| run.text.replace(' ', "").chars().count()).sum();
            assert_eq!(letters, text.chars().filter(|c| !c.is_whitespace()).count());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_makes_a_document(text in "\\PC{0,40}[\u{0}-\u{2fff}\u{fb00}-\u{feff}]{0,40}", font in "[RBIC]") {
            let mut pages = Pages::default();
            pages.paragraph(&font, 16.0, &text);
            pages.line(&font, 8.0, &text);
            proptest::prop_assert!(pages.finish("Look there.").is_ok());
        }
    }
}
