//! Moving in: FHIR bundles ([`bundles`]), and tables of patients, appointments and documents that another system wrote.
//!
//! ```text
//! DIR/patients.csv, appointments.csv, documents.csv + DIR/documents/  ->  sheet (text to rows)  ->  rows (rows to entries)
//!     ->  plan: every flaw by row, nothing written (that is the dry run)  ->  carry: what is new or has changed
//! ```
//!
//! A row is named by its number in the other system, so that an import which is repeated adds nothing twice. What a person
//! has changed here since is left as it is and told.

pub mod bundles;
mod carry;
mod cli;
mod rows;
mod sheet;

pub use carry::{Counts, Report};
pub use cli::{ImportCommand, run, sentence};
pub use rows::{Dates, Table};
pub use sheet::{Encoding, Flaw};

use crate::attachments::{ATTACHMENT_BYTES_MAX, sniff};
use crate::dates;
use crate::db::{Connection, OptionalExtension};
use crate::fhir;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use chrono_tz::Tz;
use rows::{Content, Entry, Reading};
use serde_json::json;
use sheet::TABLE_BYTES_MAX;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The folder of the files that `documents.csv` names.
const DOCUMENTS_DIR: &str = "documents";
const SOURCE_CHARS_MAX: usize = 32;

/// How an import is read.
#[derive(Debug, Clone)]
pub struct Options {
    /// The practice's name for the system that the rows come from: numbers are told apart by it.
    pub source: String,
    pub encoding: Encoding,
    pub dates: Dates,
    pub zone: Tz,
}

/// The tables themselves, before anything of them is understood.
#[derive(Debug, Default)]
pub struct Input {
    pub tables: BTreeMap<Table, Vec<u8>>,
    documents: Files,
}

/// Where the files of the documents are.
#[derive(Clone, Default)]
enum Files {
    #[default]
    Nowhere,
    Folder(PathBuf),
    /// By their names without folders, as a browser sends them; `None` for a name that came twice.
    Sent(BTreeMap<String, Option<Bytes>>),
}

/// Neither names nor contents of files are shown.
impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{0} cannot be read ({1})")]
    Read(&'static str, std::io::ErrorKind),
    #[error("{0} is larger than 256 MiB: divide it")]
    TooLarge(&'static str),
    #[error(
        "the folder holds none of patients.csv, appointments.csv and documents.csv: name it as it is, and the tables so"
    )]
    Nothing,
    #[error("--source: choose 1 to 32 small letters, digits and hyphens, such as `old-system`")]
    Source,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is to be done, and what cannot be.
#[derive(Debug)]
pub struct Plan {
    source: String,
    entries: Vec<Entry>,
    documents: Files,
    practitioners: Vec<Practitioner>,
    /// Of rows that are left out, or of a whole table (line 0 or that of the header).
    pub flaws: Vec<(Table, Flaw)>,
    /// Rows that may be the same person as another; they are brought in.
    pub doubts: Vec<(Table, Flaw)>,
    /// Rows of each table, understood or not.
    pub rows: BTreeMap<Table, u64>,
}

/// Somebody whom an appointment may name.
#[derive(Debug, Clone)]
struct Practitioner {
    id: String,
    display: String,
    /// Small letters: staff number, family name, given and family name.
    names: Vec<String>,
}

impl Input {
    /// The tables of a folder.
    pub fn folder(dir: &Path) -> Result<Input, ImportError> {
        let mut tables = BTreeMap::new();
        for table in Table::ALL {
            let failed = |error: std::io::Error| ImportError::Read(table.file(), error.kind());
            match fs::File::open(dir.join(table.file())) {
                Ok(file) => {
                    let mut bytes = Vec::new();
                    file.take(TABLE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
                    if bytes.len() as u64 > TABLE_BYTES_MAX {
                        return Err(ImportError::TooLarge(table.file()));
                    }
                    tables.insert(table, bytes);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if tables.is_empty() {
            return Err(ImportError::Nothing);
        }
        Ok(Input { tables, documents: Files::Folder(dir.join(DOCUMENTS_DIR)) })
    }

    /// One table without a folder, as a browser sends it.
    pub fn table(table: Table, bytes: Vec<u8>) -> Input {
        Input { tables: BTreeMap::from([(table, bytes)]), documents: Files::Nowhere }
    }

    /// With the files that were sent beside it; a row names one by its last part, whatever folder it stood in.
    pub fn with_files(self, files: impl IntoIterator<Item = (String, Bytes)>) -> Input {
        let mut sent = BTreeMap::new();
        for (name, bytes) in files {
            let name = last_part(&name).to_owned();
            sent.entry(name).and_modify(|known| *known = None).or_insert(Some(bytes));
        }
        Input { documents: Files::Sent(sent), ..self }
    }
}

/// Reads everything and writes nothing.
pub fn plan(store: &Store, input: &Input, options: &Options) -> Result<Plan, ImportError> {
    let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if options.source.is_empty() || options.source.len() > SOURCE_CHARS_MAX || !options.source.chars().all(named) {
        return Err(ImportError::Source);
    }
    let zone = options.zone;
    let today = dates::today(store.clock().unix_ms() / 1000, zone);
    let reading = Reading { dates: options.dates, zone, today };
    let (source, known) = (options.source.clone(), options.source.clone());
    let numbers = store.internal_blocking(move |db| numbers(db, &known))?;
    let mut plan = Plan {
        source,
        entries: Vec::new(),
        documents: input.documents.clone(),
        practitioners: store.internal_blocking(practitioners)?,
        flaws: Vec::new(),
        doubts: Vec::new(),
        rows: BTreeMap::new(),
    };
    let mut patients = Patients { here: numbers, refused: HashSet::new() };
    for (table, bytes) in &input.tables {
        plan.table(*table, bytes, options, &reading, &mut patients);
        if *table == Table::Patients {
            plan.leave_out_others(store, &mut patients)?;
        }
    }
    plan.flaws.sort_by_key(|(table, flaw)| (*table, flaw.line));
    Ok(plan)
}

/// The numbers of patients that rows may refer to.
struct Patients {
    here: HashSet<String>,
    /// Rows of this import that cannot be brought in: whose number it is nobody can tell, though one like it came in earlier.
    refused: HashSet<String>,
}

impl Plan {
    fn table(&mut self, table: Table, bytes: &[u8], options: &Options, reading: &Reading, patients: &mut Patients) {
        let sheet = match sheet::read(bytes, options.encoding, table.columns()) {
            Ok(sheet) => sheet,
            Err(flaws) => {
                self.flaws.extend(flaws.into_iter().map(|flaw| (table, flaw)));
                return;
            }
        };
        self.rows.insert(table, (sheet.rows.len() + sheet.flaws.len()) as u64);
        self.flaws.extend(sheet.flaws.into_iter().map(|flaw| (table, flaw)));
        let (lines, mut alike) = (lines_by_number(&sheet.rows), HashMap::new());
        for row in &sheet.rows {
            let understood = once(row, &lines)
                .and_then(|()| rows::understand(table, row, reading))
                .and_then(|entry| self.fits(entry, patients))
                .and_then(|entry| self.file(entry));
            match understood {
                Ok(entry) => {
                    if let Content::Patient { body } = &entry.content {
                        patients.here.insert(entry.number.clone());
                        self.doubts.extend(doubt(body, entry.line, &mut alike).map(|flaw| (table, flaw)));
                    }
                    self.entries.push(entry);
                }
                Err(flaw) => {
                    if table == Table::Patients {
                        patients.refused.extend(row.cells.first().cloned());
                    }
                    self.flaws.push((table, flaw));
                }
            }
        }
    }

    /// Takes out the rows of patients whose number came in before with somebody else: what points to it may be of either.
    fn leave_out_others(&mut self, store: &Store, patients: &mut Patients) -> Result<(), StoreError> {
        let mut others = HashSet::new();
        store.internal_blocking(|db| {
            for entry in &self.entries {
                if carry::is_of_another(db, &self.source, entry)? {
                    others.insert(entry.number.clone());
                }
            }
            Ok::<_, StoreError>(())
        })?;
        let (out, stay): (Vec<Entry>, Vec<Entry>) =
            std::mem::take(&mut self.entries).into_iter().partition(|entry| others.contains(&entry.number));
        self.entries = stay;
        self.flaws.extend(out.iter().map(|entry| (entry.table, carry::another(entry.line))));
        patients.refused.extend(others);
        Ok(())
    }

    /// Whether an entry fits to the others: a patient who is here, a practitioner whom we know, and a resource that would be
    /// accepted.
    fn fits(&self, entry: Entry, patients: &Patients) -> Result<Entry, Flaw> {
        let flaw = |column, sentence: String| Flaw::new(entry.line, column, sentence);
        let is_refused = patients.refused.contains(&entry.patient);
        if entry.table != Table::Patients && (is_refused || !patients.here.contains(&entry.patient)) {
            let told = match is_refused {
                true => "is a patient whose row in patients.csv has a problem: correct that row first",
                false => "is no number in patients.csv, nor one of an earlier import: add that patient's row",
            };
            return Err(flaw("patient", told.to_owned()));
        }
        if let Content::Appointment { practitioner, .. } = &entry.content {
            self.practitioner(practitioner).map_err(|sentence| flaw("practitioner", sentence.to_owned()))?;
        }
        let body = carry::body(self, &entry, "x", None).map_err(|error| flaw("", error.to_string()))?;
        fhir::check(entry.table.kind(), body).map_err(|error| flaw("", format!("{error}: correct this row")))?;
        Ok(entry)
    }

    /// Looks at a document's file, whose bytes belong to what the row says.
    fn file(&self, mut entry: Entry) -> Result<Entry, Flaw> {
        if let Content::Document { file, .. } = &entry.content {
            let bytes = self.documents.read(file).map_err(|sentence| Flaw::new(entry.line, "file", sentence))?;
            let mut hasher = blake3::Hasher::new();
            hasher.update(&entry.digest).update(blake3::hash(&bytes).as_bytes());
            entry.digest = *hasher.finalize().as_bytes();
        }
        Ok(entry)
    }

    /// The one practitioner that a row names; `None` where it names none.
    fn practitioner(&self, named: &str) -> Result<Option<&Practitioner>, &'static str> {
        let named = named.trim().trim_start_matches("Dr. ").to_lowercase();
        if named.is_empty() {
            return Ok(None);
        }
        let mut found = self.practitioners.iter().filter(|known| known.names.contains(&named));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(Some(one)),
            (None, _) => Err(
                "is neither a staff number nor the name of a practitioner here: enter that practitioner first, or leave it empty",
            ),
            (Some(_), Some(_)) => Err("fits several practitioners: write the staff number"),
        }
    }
}

/// The lines in which each number stands.
fn lines_by_number(rows: &[sheet::Row]) -> HashMap<&str, Vec<u64>> {
    let mut lines: HashMap<&str, Vec<u64>> = HashMap::new();
    for row in rows {
        lines.entry(row.cells.first().map_or("", String::as_str)).or_default().push(row.line);
    }
    lines
}

/// A number names one row. Which of several it should be nobody can tell, whatever else is wrong with one of them.
fn once(row: &sheet::Row, lines: &HashMap<&str, Vec<u64>>) -> Result<(), Flaw> {
    let number = row.cells.first().map_or("", String::as_str);
    let other = lines.get(number).and_then(|lines| lines.iter().find(|line| **line != row.line));
    match other {
        Some(other) if !number.is_empty() => {
            let told = format!("stands in line {other}, too: give each row a number of its own");
            Err(Flaw::new(row.line, "number", told))
        }
        _ => Ok(()),
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or_default()
}

impl Files {
    /// The bytes of a document's file, as long as it is one that is kept.
    fn read(&self, file: &str) -> Result<Vec<u8>, &'static str> {
        let bytes = match self {
            Files::Nowhere => return Err("needs the folder of the documents: import them with `appliance import csv`"),
            Files::Folder(folder) => read_file(folder, file)?,
            Files::Sent(sent) => match sent.get(last_part(file)) {
                Some(Some(bytes)) => bytes.to_vec(),
                Some(None) => return Err("was sent twice under this name: give one of the two another name"),
                None => return Err("was not sent with the table: choose it under Files"),
            },
        };
        match bytes.len() {
            0 => Err("is empty: replace it, or take the row out"),
            1..=ATTACHMENT_BYTES_MAX if sniff(&bytes).is_some() => Ok(bytes),
            1..=ATTACHMENT_BYTES_MAX => {
                Err("is none of PDF, PNG, JPEG, TIFF, DICOM, audio and plain text: turn it into one of these")
            }
            _ => Err("is larger than 32 MiB: make it smaller or divide it"),
        }
    }
}

/// What a file of the folder holds, cut off behind the largest that is kept.
fn read_file(folder: &Path, file: &str) -> Result<Vec<u8>, &'static str> {
    let absent = "is not in the folder `documents`: put it there, or correct the path";
    // A link may lead out of the folder.
    let (root, path) =
        (folder.canonicalize().map_err(|_| absent)?, folder.join(file).canonicalize().map_err(|_| absent)?);
    if !path.starts_with(&root) {
        return Err("leads out of the folder `documents`: put the file itself there");
    }
    if !path.is_file() {
        return Err("is no file: correct the path");
    }
    let mut bytes = Vec::new();
    let opened = fs::File::open(&path).map_err(|_| "cannot be read: permit it to this user")?;
    opened
        .take(ATTACHMENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|_| "cannot be read: permit it to this user")?;
    Ok(bytes)
}

/// Two rows with one name and birth date.
fn doubt(body: &serde_json::Value, line: u64, alike: &mut HashMap<String, u64>) -> Option<Flaw> {
    let who =
        json!([body["name"][0]["family"], body["name"][0]["given"], body["birthDate"]]).to_string().to_lowercase();
    let other = alike.insert(who, line)?;
    Some(Flaw::new(
        line,
        "",
        format!("has the name and birth date of line {other}: if it is one person, merge both afterwards"),
    ))
}

fn numbers(db: &Connection, source: &str) -> Result<HashSet<String>, StoreError> {
    let mut statement = db.prepare("SELECT number FROM imported_row WHERE source = ?1 AND kind = 'Patient'")?;
    Ok(statement.query_map([source], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

fn practitioners(db: &Connection) -> Result<Vec<Practitioner>, StoreError> {
    let sql = "SELECT r.id, r.body FROM resource r JOIN resource_type t ON t.id = r.type \
               WHERE t.name = 'Practitioner' AND r.deleted = 0 ORDER BY r.rid";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, body): (String, String) = (row.get(0)?, row.get(1)?);
        let body: serde_json::Value = serde_json::from_str(&body).map_err(|_| StoreError::Damaged("resource body"))?;
        let text = |pointer: &str| body.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default();
        let (given, family, number) = (text("/name/0/given/0"), text("/name/0/family"), text("/identifier/0/value"));
        let display = [text("/name/0/prefix/0"), given, family].into_iter().filter(|part| !part.is_empty());
        let display = display.collect::<Vec<_>>().join(" ");
        let names = [number.to_owned(), family.to_owned(), format!("{given} {family}"), format!("{family} {given}")];
        let names = names.into_iter().map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect();
        found.push(Practitioner { id, display, names });
    }
    Ok(found)
}

/// What an earlier import made of a row.
struct Known {
    id: String,
    version: u32,
    digest: [u8; 32],
}

impl Known {
    fn load(db: &Connection, source: &str, kind: &str, number: &str) -> Result<Option<Known>, StoreError> {
        let sql = "SELECT id, version, digest FROM imported_row WHERE source = ?1 AND kind = ?2 AND number = ?3";
        let found = db.prepare_cached(sql)?.query_row((source, kind, number), |row| {
            Ok(Known { id: row.get(0)?, version: row.get(1)?, digest: row.get(2)? })
        });
        Ok(found.optional()?)
    }
}
