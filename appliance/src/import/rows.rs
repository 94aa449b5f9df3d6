//! What the columns of each table mean, and the resource that a row becomes.

use super::sheet::{Column, Flaw, Row};
use crate::dates;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use clap::ValueEnum;
use serde_json::{Map, Value, json};

/// The tables, in the order in which they are brought in: what refers comes after what it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Patients,
    Appointments,
    Documents,
}

const fn required(name: &'static str) -> Column {
    Column { name, required: true }
}

const fn optional(name: &'static str) -> Column {
    Column { name, required: false }
}

const PATIENTS: &[Column] = &[
    required("number"),
    required("family"),
    required("given"),
    required("birth"),
    required("gender"),
    optional("phone"),
    optional("email"),
    optional("street"),
    optional("city"),
    optional("state"),
    optional("postal"),
    optional("country"),
    optional("deceased"),
];
const APPOINTMENTS: &[Column] = &[
    required("number"),
    required("patient"),
    required("day"),
    required("time"),
    required("minutes"),
    optional("practitioner"),
    optional("status"),
    optional("reason"),
];
const DOCUMENTS: &[Column] =
    &[required("number"), required("patient"), required("file"), required("day"), required("description")];

impl Table {
    pub const ALL: [Table; 3] = [Table::Patients, Table::Appointments, Table::Documents];

    pub fn file(self) -> &'static str {
        match self {
            Table::Patients => "patients.csv",
            Table::Appointments => "appointments.csv",
            Table::Documents => "documents.csv",
        }
    }

    /// What a row becomes.
    pub fn kind(self) -> &'static str {
        match self {
            Table::Patients => "Patient",
            Table::Appointments => "Appointment",
            Table::Documents => "DocumentReference",
        }
    }

    pub fn columns(self) -> &'static [Column] {
        match self {
            Table::Patients => PATIENTS,
            Table::Appointments => APPOINTMENTS,
            Table::Documents => DOCUMENTS,
        }
    }
}

/// How a table writes its days. A day as `2024-05-06` is understood in each; nothing is guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Dates {
    /// 2024-05-06 and nothing else
    #[default]
    Iso,
    /// 06.05.2024 or 06/05/2024: the day comes first
    Dmy,
    /// 05/06/2024: the month comes first
    Mdy,
}

impl Dates {
    fn day(self, text: &str) -> Option<NaiveDate> {
        if let Some(day) = dates::parse_day(text) {
            return Some(day);
        }
        let parts: Vec<&str> = text.split(['.', '/', '-']).collect();
        let &[first, second, year] = parts.as_slice() else { return None };
        // Two digits of a year are no year: 24 may be 1924.
        if year.len() != 4 || first.len() > 2 || second.len() > 2 {
            return None;
        }
        let (day, month) = match self {
            Dates::Iso => return None,
            Dates::Dmy => (first, second),
            Dates::Mdy => (second, first),
        };
        dates::parse_day(&format!("{year}-{month:0>2}-{day:0>2}"))
    }

    fn sentence(self) -> &'static str {
        match self {
            Dates::Iso => {
                "is no day like 2024-05-06: write it so, or say --dates dmy or --dates mdy for the whole import"
            }
            Dates::Dmy => "is no day like 06.05.2024 or 2024-05-06, with four digits of the year",
            Dates::Mdy => "is no day like 05/06/2024 or 2024-05-06, with four digits of the year",
        }
    }
}

/// The circumstances under which rows are read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pub dates: Dates,
    pub zone: Tz,
    pub today: NaiveDate,
}

/// A row that was understood.
#[derive(Debug, Clone)]
pub struct Entry {
    pub table: Table,
    pub line: u64,
    /// What names the row in the system that it comes from.
    pub number: String,
    /// The number of the patient that it belongs to; a patient's own for a patient.
    pub patient: String,
    /// Over everything that the row says: a repeated import knows by it whether the row has changed.
    pub digest: [u8; 32],
    pub content: Content,
}

#[derive(Debug, Clone)]
pub enum Content {
    Patient {
        body: Value,
    },
    Appointment {
        body: Value,
        practitioner: String,
    },
    /// `file` is below the folder of the documents; its digest is part of the entry's.
    Document {
        file: String,
        date: String,
        description: String,
    },
}

/// A row's values by the names of their columns.
struct Values<'a> {
    row: &'a Row,
    columns: &'static [Column],
}

impl Values<'_> {
    fn text(&self, name: &str) -> &str {
        let at = self.columns.iter().position(|column| column.name == name);
        at.and_then(|at| self.row.cells.get(at)).map_or("", String::as_str)
    }

    fn flaw(&self, column: &'static str, sentence: impl Into<String>) -> Flaw {
        Flaw::new(self.row.line, column, sentence)
    }

    /// A number that names something: as written, short, on one line.
    fn number(&self, column: &'static str) -> Result<String, Flaw> {
        let text = self.text(column);
        if text.chars().count() > 64 || text.contains(['\n', '\t', '|', '\\', '$', ',']) {
            return Err(self.flaw(column, "is no number of at most 64 letters and digits, without , | $ or \\"));
        }
        Ok(text.to_owned())
    }

    fn line_of_text(&self, column: &'static str, chars_max: usize) -> Result<String, Flaw> {
        let text = self.text(column);
        if text.chars().count() > chars_max {
            return Err(self.flaw(column, format!("is longer than {chars_max} letters: shorten it")));
        }
        Ok(text.replace(['\n', '\t'], " "))
    }

    fn day(&self, column: &'static str, reading: &Reading) -> Result<NaiveDate, Flaw> {
        reading.dates.day(self.text(column)).ok_or_else(|| self.flaw(column, reading.dates.sentence()))
    }

    fn past_day(&self, column: &'static str, reading: &Reading) -> Result<NaiveDate, Flaw> {
        let day = self.day(column, reading)?;
        if day > reading.today {
            return Err(self.flaw(column, "is in the future: correct it, or choose the other order with --dates"));
        }
        Ok(day)
    }
}

/// Understands a row of a table. `digest_of_file` is what a document's file holds, and empty otherwise.
pub fn understand(table: Table, row: &Row, reading: &Reading) -> Result<Entry, Flaw> {
    let values = Values { row, columns: table.columns() };
    let number = values.number("number")?;
    let (patient, content) = match table {
        Table::Patients => (number.clone(), patient(&values, reading)?),
        Table::Appointments => (values.number("patient")?, appointment(&values, reading)?),
        Table::Documents => (values.number("patient")?, document(&values, reading)?),
    };
    let mut hasher = blake3::Hasher::new();
    for (column, cell) in table.columns().iter().zip(&row.cells).filter(|(_, cell)| !cell.is_empty()) {
        for part in [column.name, cell] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
    }
    Ok(Entry { table, line: row.line, number, patient, digest: *hasher.finalize().as_bytes(), content })
}

fn gender(text: &str) -> Option<&'static str> {
    Some(match text.to_lowercase().as_str() {
        "f" | "female" | "w" => "female",
        "m" | "male" => "male",
        "o" | "other" | "d" | "x" => "other",
        "u" | "unknown" => "unknown",
        _ => return None,
    })
}

fn patient(values: &Values<'_>, reading: &Reading) -> Result<Content, Flaw> {
    let birth = values.past_day("birth", reading)?;
    let gender = gender(values.text("gender"))
        .ok_or_else(|| values.flaw("gender", "is none of female, male, other, unknown (or f, m, o, u)"))?;
    let given: Vec<String> = values.line_of_text("given", 200)?.split_whitespace().map(str::to_owned).collect();
    let name = json!({"use": "official", "family": values.line_of_text("family", 200)?, "given": given});
    let mut body = Map::new();
    body.insert("resourceType".into(), "Patient".into());
    body.insert("active".into(), true.into());
    body.insert("name".into(), json!([name]));
    body.insert("gender".into(), gender.into());
    body.insert("birthDate".into(), birth.to_string().into());
    let (phone, email) = (values.line_of_text("phone", 200)?, values.line_of_text("email", 200)?);
    if !phone.is_empty() && phone.chars().filter(char::is_ascii_digit).count() < 5 {
        return Err(values.flaw("phone", "has fewer than five digits: correct it or leave it empty"));
    }
    if !email.is_empty() && !email.split_once('@').is_some_and(|(a, b)| !a.is_empty() && b.contains('.')) {
        return Err(values.flaw("email", "is no e-mail address: correct it or leave it empty"));
    }
    let telecom: Vec<Value> = [("phone", phone), ("email", email)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(system, value)| json!({"system": system, "value": value}))
        .collect();
    put_list(&mut body, "telecom", telecom);
    let mut address = Map::new();
    if !values.text("street").is_empty() {
        address.insert("line".into(), json!([values.line_of_text("street", 200)?]));
    }
    for (column, element) in [("city", "city"), ("state", "state"), ("postal", "postalCode"), ("country", "country")] {
        let text = values.line_of_text(column, 200)?;
        if !text.is_empty() {
            address.insert(element.into(), text.into());
        }
    }
    if !address.is_empty() {
        body.insert("address".into(), json!([address]));
    }
    if !values.text("deceased").is_empty() {
        let day = values.past_day("deceased", reading)?;
        if day < birth {
            return Err(values.flaw("deceased", "is before the birth: correct one of them"));
        }
        body.insert("deceasedDateTime".into(), day.to_string().into());
    }
    Ok(Content::Patient { body: body.into() })
}

fn put_list(object: &mut Map<String, Value>, name: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.insert(name.into(), list.into());
    }
}

fn appointment(values: &Values<'_>, reading: &Reading) -> Result<Content, Flaw> {
    let day = values.day("day", reading)?;
    let time = dates::parse_time(values.text("time")).ok_or_else(|| values.flaw("time", "is no time like 14:30"))?;
    let start = dates::instant(day, time, reading.zone).ok_or_else(|| {
        values.flaw("time", "does not exist on this day, because the clocks are put forward: correct it")
    })?;
    let minutes = values.text("minutes").parse::<i64>().ok().filter(|minutes| (1..=1440).contains(minutes));
    let minutes = minutes.ok_or_else(|| values.flaw("minutes", "is no number from 1 to 1440"))?;
    let status = status(values.text("status"), start, reading)
        .ok_or_else(|| values.flaw("status", "is none of booked, arrived, fulfilled, cancelled, noshow"))?;
    let end = start + TimeDelta::minutes(minutes);
    let mut body = json!({
        "resourceType": "Appointment", "status": status, "minutesDuration": minutes,
        "start": dates::to_fhir(start), "end": dates::to_fhir(end),
    });
    let reason = values.line_of_text("reason", 300)?;
    if !reason.is_empty() {
        body["description"] = reason.into();
    }
    Ok(Content::Appointment { body, practitioner: values.line_of_text("practitioner", 200)? })
}

/// Without a word for it, what is over took place and what is ahead is booked.
fn status(text: &str, start: DateTime<Utc>, reading: &Reading) -> Option<&'static str> {
    let over = start < dates::day_start(reading.today, reading.zone);
    Some(match text.to_lowercase().replace([' ', '-', '_'], "").as_str() {
        "" if over => "fulfilled",
        "" | "booked" => "booked",
        "arrived" | "checkedin" => "arrived",
        "fulfilled" | "done" => "fulfilled",
        "cancelled" | "canceled" => "cancelled",
        "noshow" => "noshow",
        _ => return None,
    })
}

fn document(values: &Values<'_>, reading: &Reading) -> Result<Content, Flaw> {
    let file = values.text("file").replace('\\', "/");
    if file.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(values.flaw("file", "is no path below the folder `documents`, such as letters/1.pdf"));
    }
    let date = dates::to_fhir(dates::day_start(values.past_day("day", reading)?, reading.zone));
    Ok(Content::Document { file, date, description: values.line_of_text("description", 200)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(dates: Dates) -> Reading {
        Reading { dates, zone: chrono_tz::Europe::Berlin, today: NaiveDate::from_ymd_opt(2024, 6, 1).unwrap() }
    }

    fn row(table: Table, fields: &[(&str, &str)]) -> Row {
        let value = |column: &Column| fields.iter().find(|(n, _)| *n == column.name).map_or("", |(_, v)| *v).to_owned();
        Row { line: 7, cells: table.columns().iter().map(value).collect() }
    }

    #[test]
    fn days_are_read_in_the_order_that_was_said_and_never_guessed() {
        let day = |y, m, d| NaiveDate::from_ymd_opt(y, m, d);
        for (dates, text, found) in [
            (Dates::Iso, "2024-05-06", day(2024, 5, 6)),
            (Dates::Iso, "06.05.2024", None),
            (Dates::Dmy, "06.05.2024", day(2024, 5, 6)),
            (Dates::Dmy, "6/5/2024", day(2024, 5, 6)),
            (Dates::Mdy, "5/6/2024", day(2024, 5, 6)),
            (Dates::Mdy, "13/6/2024", None),
            (Dates::Dmy, "6.5.24", None),
            (Dates::Dmy, "2024-05-06", day(2024, 5, 6)),
            (Dates::Dmy, "31.02.2024", None),
            (Dates::Iso, "20240506", None),
        ] {
            assert_eq!(dates.day(text), found, "{dates:?} {text}");
        }
    }

    #[test]
    fn every_kind_of_bad_value_is_told_with_its_column() {
        let good = [
            (
                Table::Patients,
                vec![("number", "1"), ("family", "A"), ("given", "B"), ("birth", "1960-05-06"), ("gender", "f")],
            ),
            (
                Table::Appointments,
                vec![("number", "1"), ("patient", "1"), ("day", "2024-05-06"), ("time", "09:00"), ("minutes", "20")],
            ),
            (
                Table::Documents,
                vec![
                    ("number", "1"),
                    ("patient", "1"),
                    ("file", "a/b.pdf"),
                    ("day", "2024-05-06"),
                    ("description", "x"),
                ],
            ),
        ];
        for (table, fields) in &good {
            understand(*table, &row(*table, fields), &reading(Dates::Iso)).unwrap();
        }
        let long = "x".repeat(400);
        for (table, column, bad) in [
            (0, "number", "a|b"),
            (0, "birth", "06.05.1960"),
            (0, "birth", "2025-01-01"),
            (0, "gender", "q"),
            (0, "phone", "12"),
            (0, "email", "at home"),
            (0, "deceased", "1950-01-01"),
            (0, "family", long.as_str()),
            (1, "day", "1.1.2024"),
            (1, "time", "9 o'clock"),
            (1, "minutes", "2000"),
            (1, "minutes", "1e3"),
            (1, "status", "perhaps"),
            (1, "reason", long.as_str()),
            (2, "file", "../secret.pdf"),
            (2, "file", "/etc/passwd"),
            (2, "day", "2030-01-01"),
            (2, "description", long.as_str()),
        ] {
            let (table, mut fields) = good[table].clone();
            fields.retain(|(name, _)| *name != column);
            fields.push((column, bad));
            let flaw = understand(table, &row(table, &fields), &reading(Dates::Iso)).unwrap_err();
            assert_eq!((flaw.line, flaw.column), (7, column), "{flaw:?}");
            assert!(!flaw.sentence.contains(bad), "what stands there is not repeated");
        }
        // The clocks are put forward from 02:00 to 03:00.
        let mut fields = good[1].1.clone();
        fields.retain(|(name, _)| !["day", "time"].contains(name));
        fields.extend([("day", "2024-03-31"), ("time", "02:30")]);
        let flaw =
            understand(Table::Appointments, &row(Table::Appointments, &fields), &reading(Dates::Iso)).unwrap_err();
        assert_eq!(flaw.column, "time");
    }
}
