//! Visit types: what somebody comes for, how long it takes, with whom and where. Each is a `HealthcareService`.

use super::{extension, set_extension};
use serde_json::{Value, json};

const MINUTES: &str = "urn:holdfast:visit-minutes";
const OFFERED_BY: &str = "urn:holdfast:offered-by";
const EQUIPMENT: &str = "urn:holdfast:equipment";
const ONLINE: &str = "urn:holdfast:online-booking";
const NOTICE: &str = "urn:holdfast:notice-hours";
const HORIZON: &str = "urn:holdfast:horizon-days";
const NEW_PATIENTS: &str = "urn:holdfast:new-patients";

/// What strangers may do with a visit type on the public pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Online {
    Off,
    /// Free times are shown, with the practice's phone number.
    View,
    /// A chosen time waits for the practice's word.
    Request,
    /// A chosen time is booked.
    Direct,
}

impl Online {
    pub const ALL: [(Online, &'static str, &'static str); 4] = [
        (Online::Off, "off", "Not online"),
        (Online::View, "view", "Show free times only"),
        (Online::Request, "request", "Patients ask, the practice approves"),
        (Online::Direct, "direct", "Patients book directly"),
    ];

    pub fn parse(code: &str) -> Online {
        Online::ALL.iter().find(|(_, c, _)| *c == code).map_or(Online::Off, |(mode, ..)| *mode)
    }

    pub fn code(self) -> &'static str {
        Online::ALL.iter().find(|(mode, ..)| *mode == self).map_or("off", |(_, code, _)| code)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisitType {
    pub id: String,
    pub version: u32,
    pub name: String,
    pub comment: String,
    pub active: bool,
    pub minutes: i64,
    /// `Practitioner/...`; empty for everybody with hours.
    pub offered_by: Vec<String>,
    /// One of these rooms is needed; empty for none.
    pub rooms: Vec<String>,
    /// One of these pieces of equipment is needed; empty for none.
    pub equipment: Vec<String>,
    pub online: Online,
    /// Online bookings begin at least this many hours ahead.
    pub notice_hours: i64,
    /// and at most this many days.
    pub horizon_days: i64,
    pub new_patients: bool,
}

impl VisitType {
    /// A visit of no certain type: anywhere, with anybody.
    pub fn plain() -> VisitType {
        VisitType::read(&Value::Null)
    }

    pub fn read(service: &Value) -> VisitType {
        let text = |name: &str| service.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |url: &str, least: i64, most: i64, otherwise: i64| {
            let value = extension(service, url, "valueInteger").and_then(Value::as_i64);
            value.map_or(otherwise, |v| v.clamp(least, most))
        };
        let references = |url: &str| {
            let all = service.get("extension").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let ours = all.iter().filter(|e| e.get("url").and_then(Value::as_str) == Some(url));
            ours.filter_map(|e| Some(e.pointer("/valueReference/reference")?.as_str()?.to_owned())).collect()
        };
        let rooms = service.get("location").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        VisitType {
            id: text("id"),
            version: service
                .pointer("/meta/versionId")
                .and_then(Value::as_str)
                .and_then(|v| v.parse().ok())
                .unwrap_or(0),
            name: text("name"),
            comment: text("comment"),
            active: service.get("active") != Some(&Value::Bool(false)),
            minutes: number(MINUTES, 5, 480, 30),
            offered_by: references(OFFERED_BY),
            rooms: rooms.iter().filter_map(|r| Some(r.get("reference")?.as_str()?.to_owned())).collect(),
            equipment: references(EQUIPMENT),
            online: Online::parse(extension(service, ONLINE, "valueCode").and_then(Value::as_str).unwrap_or_default()),
            notice_hours: number(NOTICE, 0, 24 * 60, 24),
            horizon_days: number(HORIZON, 1, 365, 60),
            new_patients: extension(service, NEW_PATIENTS, "valueBoolean") != Some(&Value::Bool(false)),
        }
    }

    /// Writes it over a `HealthcareService`, leaving what is not ours as it was.
    pub fn write(&self, service: &mut Value) {
        service["resourceType"] = "HealthcareService".into();
        service["active"] = self.active.into();
        service["name"] = self.name.as_str().into();
        if let Some(object) = service.as_object_mut() {
            for (name, empty, value) in [
                ("comment", self.comment.is_empty(), Value::from(self.comment.as_str())),
                ("location", self.rooms.is_empty(), self.rooms.iter().map(|r| json!({"reference": r})).collect()),
            ] {
                object.remove(name);
                if !empty {
                    object.insert(name.into(), value);
                }
            }
        }
        for (url, name, value) in [
            (MINUTES, "valueInteger", Value::from(self.minutes)),
            (ONLINE, "valueCode", self.online.code().into()),
            (NOTICE, "valueInteger", self.notice_hours.into()),
            (HORIZON, "valueInteger", self.horizon_days.into()),
            (NEW_PATIENTS, "valueBoolean", self.new_patients.into()),
        ] {
            set_extension(service, url, Some((name, value)));
        }
        for (url, references) in [(OFFERED_BY, &self.offered_by), (EQUIPMENT, &self.equipment)] {
            set_extension(service, url, None);
            let Some(object) = service.as_object_mut() else { return };
            let all = object.entry("extension").or_insert_with(|| json!([]));
            if let Some(all) = all.as_array_mut() {
                all.extend(references.iter().map(|r| json!({"url": url, "valueReference": {"reference": r}})));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_rest_is_kept() {
        let mut visit = VisitType::read(&json!({"resourceType": "HealthcareService", "name": "New patient"}));
        assert_eq!((visit.minutes, visit.online, visit.new_patients), (30, Online::Off, true));
        visit.minutes = 45;
        visit.online = Online::Request;
        visit.offered_by = vec!["Practitioner/a".into(), "Practitioner/b".into()];
        visit.rooms = vec!["Location/r".into()];
        visit.equipment = vec!["Location/u".into()];
        visit.comment = "Please bring your card".into();
        let mut service = json!({"resourceType": "HealthcareService", "telecom": [{"value": "1"}], "extension": [{"url": "x", "valueCode": "y"}]});
        visit.write(&mut service);
        visit.write(&mut service);
        assert_eq!(VisitType::read(&service), visit);
        assert_eq!(service["telecom"][0]["value"], "1");
        assert!(service.to_string().contains("\"x\""));
    }
}
