//! Text as rows of glyphs: broken to a width, each direction of writing in its order, each letter in a font that has it.

use krilla::text::{Font, GlyphId, KrillaGlyph};
use rustybuzz::{Direction, UnicodeBuffer};
use std::ops::Range;
use std::sync::LazyLock;
use unicode_bidi::{BidiInfo, Level, ParagraphInfo};
use unicode_script::{Script, UnicodeScript};

/// What is printed for a letter that no font has.
pub const NO_GLYPH: char = '□';

/// The fonts: DejaVu, which has Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    Regular,
    Bold,
    Italic,
    Fixed,
}

/// A font in the two forms in which it is needed.
struct Loaded {
    face: rustybuzz::Face<'static>,
    embedded: Font,
}

/// In the order of [`Face`].
static LOADED: LazyLock<[Option<Loaded>; 4]> = LazyLock::new(|| {
    use dejavu::{sans, sans_mono};
    [sans::regular(), sans::bold(), sans::oblique(), sans_mono::regular()].map(|file| {
        let face = rustybuzz::Face::from_slice(file, 0)?;
        Some(Loaded { face, embedded: Font::new(file.into(), 0)? })
    })
});

impl Face {
    pub fn named(name: &str) -> Face {
        match name {
            "B" => Face::Bold,
            "I" => Face::Italic,
            "C" => Face::Fixed,
            _ => Face::Regular,
        }
    }

    pub fn embedded(self) -> Option<Font> {
        self.loaded().map(|loaded| loaded.embedded.clone())
    }

    fn loaded(self) -> Option<&'static Loaded> {
        LOADED.get(self as usize).and_then(Option::as_ref)
    }

    fn has(self, letter: char) -> bool {
        self.loaded().is_some_and(|loaded| loaded.face.glyph_index(letter).is_some())
    }

    /// The font that prints this letter where this one is asked for.
    fn with(self, letter: char) -> Face {
        if self.has(letter) { self } else { Face::Regular }
    }

    /// Width of a letter that stands alone, in parts of the size: of letters that join at least what they take.
    fn width(self, letter: char) -> f32 {
        let Some(loaded) = self.with(letter).loaded() else { return 0.0 };
        let advance = loaded.face.glyph_index(letter).and_then(|glyph| loaded.face.glyph_hor_advance(glyph));
        f32::from(advance.unwrap_or_default()) / loaded.embedded.units_per_em()
    }
}

/// Letters of one font, script and direction, in the order in which they are drawn. Widths are in parts of the size.
pub struct Run {
    pub face: Face,
    pub text: String,
    pub glyphs: Vec<KrillaGlyph>,
    pub width: f32,
}

pub struct Row {
    pub runs: Vec<Run>,
    pub width: f32,
}

/// A paragraph.
pub struct Set {
    pub rows: Vec<Row>,
    pub right_to_left: bool,
    /// Whether there is a letter in it that no font has.
    pub missing: bool,
}

/// Breaks one paragraph into rows of at most `width` points.
pub fn set(text: &str, face: Face, size: f32, width: f32) -> Set {
    let mut missing = false;
    let text: String = text.chars().map(|letter| printed(letter, face, &mut missing)).collect();
    let rows = broken(&text, face, width / size);
    let bidi = BidiInfo::new(&text, None);
    let Some(paragraph) = bidi.paragraphs.first() else {
        return Set { rows: vec![Row { runs: Vec::new(), width: 0.0 }], right_to_left: false, missing };
    };
    let rows = rows.into_iter().map(|range| row(&text, &bidi, paragraph, range, face)).collect();
    Set { rows, right_to_left: paragraph.level.is_rtl(), missing }
}

/// A letter as it can be printed. Nothing in the result ends a paragraph.
fn printed(letter: char, face: Face, missing: &mut bool) -> char {
    match letter {
        '\t' | '\u{2028}' | '\u{2029}' => ' ',
        letter if unseen(letter) || (!letter.is_control() && (face.has(letter) || Face::Regular.has(letter))) => letter,
        _ => {
            *missing = true;
            NO_GLYPH
        }
    }
}

/// What steers how letters join and turn, and has no shape of its own.
fn unseen(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

/// Where the rows begin and end: between words, or within one that is wider than a row.
fn broken(text: &str, face: Face, width: f32) -> Vec<Range<usize>> {
    let mut rows = Vec::new();
    let (mut start, mut filled) = (0, 0.0);
    // Behind the last space of the row, and what is filled from there on.
    let (mut space, mut word) = (0, 0.0);
    for (at, letter) in text.char_indices() {
        let advance = if unseen(letter) { 0.0 } else { face.width(letter) };
        if filled + advance > width && letter != ' ' && at > start {
            let end = if space > start { space } else { at };
            rows.push(start..end);
            filled = if space > start { word } else { 0.0 };
            (start, space) = (end, end);
        }
        filled += advance;
        word += advance;
        if letter == ' ' {
            (space, word) = (at + 1, 0.0);
        }
    }
    rows.push(start..text.len());
    rows
}

fn row(text: &str, bidi: &BidiInfo<'_>, paragraph: &ParagraphInfo, range: Range<usize>, face: Face) -> Row {
    // The space at which a row was broken stands at neither end.
    let words = text.get(range.clone()).unwrap_or_default().trim_end_matches(' ');
    let range = range.start..range.start + words.len();
    let mut runs = Vec::new();
    if !range.is_empty() {
        let (levels, ordered) = bidi.visual_runs(paragraph, range);
        for run in ordered {
            let level = levels.get(run.start).copied().unwrap_or(Level::ltr());
            let mut shaped: Vec<Run> = alike(text.get(run).unwrap_or_default(), face)
                .into_iter()
                .filter_map(|(part, face)| shape(part, face, level.is_rtl()))
                .collect();
            if level.is_rtl() {
                shaped.reverse();
            }
            runs.append(&mut shaped);
        }
    }
    let width = runs.iter().map(|run| run.width).sum();
    Row { runs, width }
}

/// The parts of a text that are of one font and one script.
fn alike(text: &str, face: Face) -> Vec<(&str, Face)> {
    let mut parts = Vec::new();
    let mut begun: Option<(usize, Face, Script)> = None;
    for (at, letter) in text.char_indices() {
        let script = letter.script();
        let common = matches!(script, Script::Common | Script::Inherited);
        match &mut begun {
            // Marks belong to the letter before them, whichever font it is in.
            Some(_) if script == Script::Inherited || unseen(letter) => {}
            Some((_, now, _)) if *now == face.with(letter) && common => {}
            Some((_, now, of)) if *now == face.with(letter) && (*of == script || *of == Script::Common) => *of = script,
            Some((start, now, of)) => {
                parts.extend(text.get(*start..at).map(|part| (part, *now)));
                (*start, *now, *of) = (at, face.with(letter), script);
            }
            None => begun = Some((at, if unseen(letter) { face } else { face.with(letter) }, script)),
        }
    }
    parts.extend(begun.and_then(|(start, now, _)| text.get(start..).map(|part| (part, now))));
    parts
}

fn shape(text: &str, face: Face, right_to_left: bool) -> Option<Run> {
    let loaded = face.loaded()?;
    let mut buffer = UnicodeBuffer::new();
    buffer.push_str(text);
    buffer.guess_segment_properties();
    buffer.set_direction(if right_to_left { Direction::RightToLeft } else { Direction::LeftToRight });
    let shaped = rustybuzz::shape(&loaded.face, &[], buffer);
    let infos = shaped.glyph_infos();
    let em = loaded.embedded.units_per_em();
    let part = |units: i32| units as f32 / em;
    let mut glyphs = Vec::with_capacity(infos.len());
    for (index, (info, at)) in infos.iter().zip(shaped.glyph_positions()).enumerate() {
        // The letters of a glyph end where those of the glyph that is read next begin.
        let beyond = |other: &&rustybuzz::GlyphInfo| other.cluster > info.cluster;
        let next = if right_to_left {
            infos.get(..index).and_then(|before| before.iter().rev().find(beyond))
        } else {
            infos.get(index..).and_then(|after| after.iter().find(beyond))
        };
        let letters = info.cluster as usize..next.map_or(text.len(), |next| next.cluster as usize);
        let id = GlyphId::new(info.glyph_id);
        let [advance, right, up, down] = [at.x_advance, at.x_offset, at.y_offset, at.y_advance].map(part);
        glyphs.push(KrillaGlyph::new(id, advance, right, up, down, letters, None));
    }
    let width = glyphs.iter().map(|glyph| glyph.x_advance).sum();
    Some(Run { face, text: text.to_owned(), glyphs, width })
}
