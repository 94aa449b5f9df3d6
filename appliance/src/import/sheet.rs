//! A table as another program wrote it: comma-separated text (RFC 4180), also with semicolons or tabs, in the usual encodings.
//!
//! Every row keeps the number of its first line. What cannot be understood is a [`Flaw`] at its row, and a file that cannot be
//! understood as a whole is refused as a whole: no row is lost without a word.

use clap::ValueEnum;

/// The largest table, bytes.
pub const TABLE_BYTES_MAX: u64 = 256 << 20;
/// The longest value, bytes.
const CELL_BYTES_MAX: usize = 64 << 10;
const ROWS_MAX: usize = 2_000_000;

/// How the letters of a table are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Encoding {
    /// UTF-8, or UTF-16 with its mark at the beginning
    #[default]
    Unicode,
    /// What spreadsheets on older Windows write in western Europe and America
    #[value(name = "windows-1252")]
    Windows1252,
}

/// What is wrong at a place of a table; never says what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// From 1; 0 for the file as a whole.
    pub line: u64,
    /// Name of the column; empty for the row as a whole.
    pub column: &'static str,
    pub sentence: String,
}

impl Flaw {
    pub fn new(line: u64, column: &'static str, sentence: impl Into<String>) -> Flaw {
        Flaw { line, column, sentence: sentence.into() }
    }
}

/// One row, with a value for each column of the table, in the table's order; empty where the file has no such column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub line: u64,
    pub cells: Vec<String>,
}

/// A column that a table may have.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub required: bool,
}

/// A table that was read: its rows, and what is wrong with others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sheet {
    pub rows: Vec<Row>,
    pub flaws: Vec<Flaw>,
}

/// Reads a table with a header line.
///
/// # Errors
/// What is wrong with the file as a whole; nothing of it is used then.
pub fn read(bytes: &[u8], encoding: Encoding, columns: &'static [Column]) -> Result<Sheet, Vec<Flaw>> {
    let decoded = decode(bytes, encoding).map_err(|flaw| vec![flaw])?;
    let mut records = split(&decoded).map_err(|flaw| vec![flaw])?.into_iter();
    let header = records.next().ok_or_else(|| vec![Flaw::new(0, "", "is empty: the first line names the columns")])?;
    let places = places(&header, columns)?;
    let mut sheet = Sheet::default();
    for record in records {
        match row(&record, header.cells.len(), &places, columns) {
            Ok(row) => sheet.rows.push(row),
            Err(flaw) => sheet.flaws.push(flaw),
        }
    }
    Ok(sheet)
}

/// A record as it stands in the file.
struct Record {
    line: u64,
    cells: Vec<Vec<u8>>,
    /// Something stands behind a closing quotation mark.
    torn: bool,
}

/// The bytes as UTF-8 where that can be told of the file as a whole.
fn decode(bytes: &[u8], encoding: Encoding) -> Result<Vec<u8>, Flaw> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair)).collect();
        let broken = || Flaw::new(0, "", "is not whole UTF-16: write the table anew as UTF-8");
        String::from_utf16(&units).map(String::into_bytes).map_err(|_| broken())
    };
    match (encoding, bytes) {
        (Encoding::Unicode, [0xff, 0xfe, rest @ ..]) => utf16(rest, u16::from_le_bytes),
        (Encoding::Unicode, [0xfe, 0xff, rest @ ..]) => utf16(rest, u16::from_be_bytes),
        (Encoding::Unicode, [0xef, 0xbb, 0xbf, rest @ ..]) => Ok(rest.to_vec()),
        // By row: one bad name does not cost the others.
        (Encoding::Unicode, bytes) => Ok(bytes.to_vec()),
        (Encoding::Windows1252, bytes) if !bytes.is_ascii() && std::str::from_utf8(bytes).is_ok() => {
            Err(Flaw::new(0, "", "is UTF-8 and not windows-1252: leave out --encoding"))
        }
        (Encoding::Windows1252, bytes) => {
            Ok(bytes.iter().map(|byte| windows_1252(*byte)).collect::<String>().into_bytes())
        }
    }
}

fn windows_1252(byte: u8) -> char {
    const UPPER: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    let at = usize::from(byte).checked_sub(0x80);
    at.and_then(|at| UPPER.get(at)).copied().unwrap_or(char::from(byte))
}

/// The sign between values: the one that the first line has most of.
fn separator(bytes: &[u8]) -> u8 {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |sign: u8| first.iter().filter(|byte| **byte == sign).count();
    [b',', b';', b'\t'].into_iter().rev().max_by_key(|sign| count(*sign)).unwrap_or(b',')
}

/// Where the reader stands inside a record.
#[derive(PartialEq, Eq)]
enum State {
    Begin,
    Plain,
    Quoted,
    Closed,
}

fn split(bytes: &[u8]) -> Result<Vec<Record>, Flaw> {
    let separator = separator(bytes);
    let mut records = Vec::new();
    let (mut line, mut state) = (1u64, State::Begin);
    let mut record = Record { line, cells: Vec::new(), torn: false };
    let mut cell = Vec::new();
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte == b'\n' {
            line += 1;
        }
        match (byte, &state) {
            (b'"', State::Begin) => state = State::Quoted,
            (b'"', State::Quoted) if rest.next_if_eq(&b'"').is_some() => cell.push(b'"'),
            (b'"', State::Quoted) => state = State::Closed,
            (byte, State::Quoted) => cell.push(byte),
            (b'\r', _) if rest.peek() == Some(&b'\n') => {}
            (b'\n', _) => {
                record.cells.push(std::mem::take(&mut cell));
                let whole = std::mem::replace(&mut record, Record { line, cells: Vec::new(), torn: false });
                // An empty line is no row.
                if whole.cells.iter().any(|cell| !cell.is_empty()) {
                    records.push(whole);
                }
                state = State::Begin;
            }
            (byte, _) if byte == separator => {
                record.cells.push(std::mem::take(&mut cell));
                state = State::Begin;
            }
            (_, State::Closed) => record.torn = true,
            (byte, _) => {
                cell.push(byte);
                state = State::Plain;
            }
        }
        if cell.len() > CELL_BYTES_MAX {
            return Err(Flaw::new(
                record.line,
                "",
                "holds a value of more than 64 KiB: a quotation mark may be missing",
            ));
        }
        if records.len() > ROWS_MAX {
            return Err(Flaw::new(0, "", "has more than two million rows: divide it"));
        }
    }
    if state == State::Quoted {
        return Err(Flaw::new(record.line, "", "opens a quotation mark that is never closed: close it"));
    }
    record.cells.push(cell);
    if record.cells.iter().any(|cell| !cell.is_empty()) {
        records.push(record);
    }
    Ok(records)
}

/// For each column of the table its place in the file.
fn places(header: &Record, columns: &'static [Column]) -> Result<Vec<Option<usize>>, Vec<Flaw>> {
    let named: Vec<String> = header
        .cells
        .iter()
        .map(|cell| String::from_utf8_lossy(cell).trim().to_lowercase().replace([' ', '-'], "_"))
        .collect();
    let known = |name: &String| columns.iter().any(|column| column.name == name);
    let all = columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
    if !named.iter().any(known) {
        let sentence = format!("names no column that is known here: the first line must, with some of: {all}");
        return Err(vec![Flaw::new(header.line, "", sentence)]);
    }
    let mut flaws = Vec::new();
    for name in named.iter().filter(|name| !known(name)) {
        let sentence =
            format!("names the column `{name}`, which is not known: rename it or take it out; known are {all}");
        flaws.push(Flaw::new(header.line, "", sentence));
    }
    let mut places = Vec::new();
    for column in columns {
        let mut found = (0..).zip(&named).filter(|(_, name)| *name == column.name).map(|(at, _)| at);
        let place = found.next();
        if place.is_none() && column.required {
            flaws.push(Flaw::new(header.line, column.name, "is missing: add this column"));
        }
        if found.next().is_some() {
            flaws.push(Flaw::new(header.line, column.name, "is named twice: take one out"));
        }
        places.push(place);
    }
    if flaws.is_empty() { Ok(places) } else { Err(flaws) }
}

fn row(record: &Record, expected: usize, places: &[Option<usize>], columns: &'static [Column]) -> Result<Row, Flaw> {
    let line = record.line;
    if record.torn {
        let sentence = "has something behind a closing quotation mark: write a quotation mark inside a value twice";
        return Err(Flaw::new(line, "", sentence));
    }
    if record.cells.len() != expected {
        let sentence = format!(
            "has {} values where the first line names {expected} columns: put values with a separator into quotation marks",
            record.cells.len()
        );
        return Err(Flaw::new(line, "", sentence));
    }
    let mut cells = Vec::with_capacity(columns.len());
    for (place, column) in places.iter().zip(columns) {
        let bytes = place.and_then(|at| record.cells.get(at)).map_or(&[][..], Vec::as_slice);
        let text = std::str::from_utf8(bytes).map_err(|_| {
            Flaw::new(line, column.name, "is not UTF-8: write the table as UTF-8, or say --encoding windows-1252")
        })?;
        let text = text.replace("\r\n", "\n").trim().to_owned();
        // U+FFFD stands for a letter that an earlier conversion has lost; C1 controls come of a wrong encoding.
        if text.contains(|c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{fffd}') {
            return Err(Flaw::new(line, column.name, "holds a sign that is no letter: write the table anew, as UTF-8"));
        }
        if text.is_empty() && column.required {
            return Err(Flaw::new(line, column.name, "is empty: it is needed in every row"));
        }
        cells.push(text);
    }
    Ok(Row { line, cells })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column { name: "number", required: true },
        Column { name: "name", required: true },
        Column { name: "city", required: false },
    ];

    fn cells(text: &[u8], encoding: Encoding) -> Vec<Vec<String>> {
        let sheet = read(text, encoding, COLUMNS).unwrap();
        assert_eq!(sheet.flaws, []);
        sheet.rows.into_iter().map(|row| row.cells).collect()
    }

    #[test]
    fn tables_of_every_usual_kind_are_read_alike() {
        let expected = vec![
            vec!["1".to_owned(), "Müller, Jo".into(), "Köln".into()],
            vec!["2".into(), "A \"B\"\nC".into(), String::new()],
        ];
        let text = "number,name,city\r\n1,\"Müller, Jo\",Köln\r\n\r\n2,\"A \"\"B\"\"\r\nC\",";
        assert_eq!(cells(text.as_bytes(), Encoding::Unicode), expected);
        assert_eq!(cells(format!("\u{feff}{text}").as_bytes(), Encoding::Unicode), expected);
        let semicolons = "City;Name;NUMBER\nKöln;\"Müller, Jo\";1\n;\"A \"\"B\"\"\nC\";2\n";
        assert_eq!(cells(semicolons.as_bytes(), Encoding::Unicode), expected);
        let tabs = "number\tname\tcity\n1\tMüller, Jo\tKöln\n2\t\"A \"\"B\"\"\nC\"\t";
        assert_eq!(cells(tabs.as_bytes(), Encoding::Unicode), expected);
        let little: Vec<u8> = std::iter::once(0xfeff).chain(tabs.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        assert_eq!(cells(&little, Encoding::Unicode), expected);
        let old: Vec<u8> = tabs.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        assert_eq!(cells(&old, Encoding::Windows1252), expected);
        assert_eq!(cells(b"number,name\n1,\x80\x9f", Encoding::Windows1252)[0][1], "€Ÿ");
    }

    #[test]
    fn a_bad_row_is_told_and_the_others_stay() {
        let text = b"number,name,city\n1,A,B\n2,A\n3,\xfc,B\n,A,B\n4,\"A\"x,B\n5,A\x07,B\n6,A\xef\xbf\xbd,B\n7,\"A\nB\",C\n8,A,B,C\n9,Z,Z\n";
        let sheet = read(text, Encoding::Unicode, COLUMNS).unwrap();
        assert_eq!(sheet.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 9, 12]);
        let told: Vec<(u64, &str)> = sheet.flaws.iter().map(|flaw| (flaw.line, flaw.column)).collect();
        assert_eq!(told, [(3, ""), (4, "name"), (5, "number"), (6, ""), (7, "name"), (8, "name"), (11, "")]);
        for (flaw, word) in
            sheet.flaws.iter().zip(["2 values", "windows-1252", "empty", "quotation", "UTF-8", "UTF-8", "4 values"])
        {
            assert!(flaw.sentence.contains(word), "{flaw:?}");
        }
    }

    #[test]
    fn a_bad_file_is_refused_as_a_whole() {
        let refused = |text: &[u8], encoding| {
            let flaws = read(text, encoding, COLUMNS).unwrap_err();
            flaws.into_iter().map(|flaw| format!("{}: {}", flaw.column, flaw.sentence)).collect::<Vec<_>>().join("\n")
        };
        assert!(refused(b"", Encoding::Unicode).contains("first line names the columns"));
        assert!(refused(b"1,Abel,Bern\n", Encoding::Unicode).contains("number, name, city"));
        let both = refused(b"number,colour,city\n", Encoding::Unicode);
        assert!(both.contains("`colour`") && both.contains("name: is missing"), "{both}");
        assert!(refused(b"number,name,name\n", Encoding::Unicode).contains("twice"));
        assert!(refused(b"number,name\n1,\"A\n2,B\n", Encoding::Unicode).contains("never closed"));
        assert!(refused("number,name\n1,Müller\n".as_bytes(), Encoding::Windows1252).contains("leave out --encoding"));
        assert!(refused(b"\xff\xfe\x00\xd8", Encoding::Unicode).contains("UTF-16"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_lose_a_row(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&bytes, Encoding::Unicode, COLUMNS);
            let mut text = b"number,name,city\n".to_vec();
            text.extend(bytes.iter().map(|byte| if *byte == b'"' { b'x' } else { *byte }));
            let lines = text.split(|byte| *byte == b'\n').skip(1).filter(|line| line.iter().any(|byte| !b",\r".contains(byte))).count();
            if let Ok(sheet) = read(&text, Encoding::Unicode, COLUMNS) {
                proptest::prop_assert!(sheet.rows.len() + sheet.flaws.len() >= lines);
            }
        }
    }
}
