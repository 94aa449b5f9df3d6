//! Access in the portal follows a record that was merged into another one, and goes back when the merge is undone.
//!
//! What followed is written down by its ids, so that the undoing takes back this and nothing that was granted since. An account
//! of the closed record stays where it is when the surviving one has its own, as one address does when both invite it.

use super::accounts::AccountError;
use crate::db::{Connection, OptionalExtension, params};
use crate::store::StoreError;

/// What carries a patient's id, with the column that names a row.
const TABLES: [(&str, &str); 3] =
    [("portal_account", "id"), ("portal_proxy", "id"), ("portal_invite", "lower(hex(token_hash))")];

fn key(closed: &str) -> String {
    format!("merged {closed}")
}

/// Lets what opens the closed record open the surviving one. Gives how many accounts and grants these are.
pub fn follow(db: &Connection, closed: &str, kept: &str) -> Result<usize, AccountError> {
    // Somebody who acts for both keeps both grants; an own account is one for each record.
    let account = "NOT EXISTS (SELECT 1 FROM portal_account o WHERE o.patient = ?2)";
    let proxy =
        "NOT EXISTS (SELECT 1 FROM portal_proxy o WHERE o.patient = ?2 AND o.withdrawn IS NULL AND o.mail = t.mail)";
    // An invitation goes with the grant that it is for; one of the patient with the account that it opens.
    let invite = "CASE WHEN t.proxy IS NULL THEN NOT EXISTS (SELECT 1 FROM portal_account o WHERE o.patient = ?2) \
                  ELSE EXISTS (SELECT 1 FROM portal_proxy o WHERE o.id = t.proxy AND o.patient = ?2) END";
    let mut moved = Vec::new();
    // Grants before invitations, invitations before accounts: each condition asks for the one before.
    for (place, condition) in [(1, proxy), (2, invite), (0, account)] {
        let Some((table, id)) = TABLES.get(place) else { continue };
        let sql = format!("SELECT {id} FROM {table} t WHERE t.patient = ?1 AND {condition}");
        let mut statement = db.prepare_cached(&sql)?;
        let ids = statement
            .query_map(params![closed, kept], |row| row.get::<_, String>(0))?
            .collect::<Result<Vec<_>, _>>()?;
        for id in ids {
            put(db, place, &id, (closed, kept))?;
            moved.push(format!("{place}:{id}"));
        }
    }
    if !moved.is_empty() {
        let sql = "INSERT INTO practice_setting (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        db.execute(sql, params![key(closed), moved.join(" ")])?;
    }
    Ok(moved.len())
}

/// Takes back what followed, from whichever of `survivors` it is at by now.
pub fn undo(db: &Connection, closed: &str, survivors: &[String]) -> Result<usize, AccountError> {
    let sql = "SELECT value FROM practice_setting WHERE key = ?1";
    let found: Option<String> = db.query_row(sql, [key(closed)], |row| row.get(0)).optional()?;
    let Some(moved) = found else { return Ok(0) };
    let mut back = 0;
    for (place, id) in moved.split(' ').filter_map(|one| one.split_once(':')) {
        let place: usize = place.parse().map_err(|_| StoreError::Damaged("merged record"))?;
        for kept in survivors {
            back += put(db, place, id, (kept, closed))?;
        }
    }
    db.execute("DELETE FROM practice_setting WHERE key = ?1", [key(closed)])?;
    Ok(back)
}

/// Gives one row to another patient, unless it is nobody's or somebody else's by now. Sessions that it has end: their pages
/// were drawn for the other record.
fn put(db: &Connection, place: usize, id: &str, (from, to): (&str, &str)) -> Result<usize, AccountError> {
    let Some((table, column)) = TABLES.get(place) else { return Ok(0) };
    let free = if place == 0 { "AND NOT EXISTS (SELECT 1 FROM portal_account o WHERE o.patient = ?3)" } else { "" };
    let sql = format!("UPDATE {table} SET patient = ?3 WHERE {column} = ?1 AND patient = ?2 {free}");
    let moved = db.execute(&sql, params![id, from, to])?;
    let sessions = match place {
        0 => "DELETE FROM portal_session WHERE account = ?1 AND acting IS NULL",
        1 => "DELETE FROM portal_session WHERE acting = ?1",
        _ => return Ok(moved),
    };
    if moved > 0 {
        db.execute(sessions, [id])?;
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::super::portal::{self, Invited, NewAccount};
    use super::super::proxy::{self, Proxy, Reach};
    use super::*;

    fn database() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(crate::access::SCHEMA_4).unwrap();
        db.execute_batch(crate::access::SCHEMA_6).unwrap();
        db.execute_batch("CREATE TABLE practice_setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);").unwrap();
        db
    }

    fn account(db: &Connection, id: &str, patient: &str) {
        let mail = format!("{id}@example.org");
        let new = NewAccount {
            id,
            patient,
            mail: &mail,
            password_hash: "!",
            totp_secret: None,
            totp_step: None,
            birth: None,
        };
        portal::set_up(db, &new, 1000).unwrap();
    }

    fn grant(db: &Connection, id: &str, patient: &str, mail: &str) {
        let proxy = Proxy {
            id: id.into(),
            patient: patient.into(),
            related: "r".into(),
            account: None,
            name: "Eva".into(),
            birth: "1985-01-02".into(),
            mail: mail.into(),
            relation: "mother".into(),
            reach: Reach::All,
            granted: 1000,
            ends: 9000,
            withdrawn: false,
        };
        proxy::grant(db, &proxy).unwrap();
    }

    #[test]
    fn access_follows_a_merge_by_way_of_others_and_goes_back() {
        let db = database();
        account(&db, "own", "a");
        grant(&db, "g", "a", "eva@example.org");
        portal::invite(&db, "link", Invited { patient: "a", proxy: Some("g"), mail: "eva@example.org" }, "S", 1000)
            .unwrap();
        portal::open(&db, "own", "token", "csrf", 1000).unwrap();
        assert_eq!(follow(&db, "a", "b").unwrap(), 3);
        assert!(
            portal::find(&db, "token", 1001).unwrap().is_none(),
            "pages of the old record are not answered into the other one"
        );
        assert_eq!(portal::of_patient(&db, "b").unwrap().unwrap().id, "own");
        assert_eq!(portal::open_invite(&db, "link", 1001).unwrap().patient, "b");
        grant(&db, "later", "b", "carl@example.org");
        assert_eq!(follow(&db, "b", "c").unwrap(), 4);
        assert_eq!(proxy::of_patient(&db, "c").unwrap().len(), 2);
        // The first merge is undone while the second one stands; then that one too.
        assert_eq!(undo(&db, "a", &["b".into(), "c".into()]).unwrap(), 3);
        assert_eq!(portal::of_patient(&db, "a").unwrap().unwrap().id, "own");
        assert_eq!(undo(&db, "b", &["c".into()]).unwrap(), 1, "what was granted to it");
        assert_eq!((proxy::of_patient(&db, "a").unwrap().len(), proxy::of_patient(&db, "b").unwrap().len()), (1, 1));
        assert_eq!(undo(&db, "b", &["c".into()]).unwrap(), 0, "once");
    }

    #[test]
    fn who_has_access_to_both_keeps_both() {
        let db = database();
        account(&db, "one", "a");
        account(&db, "two", "b");
        grant(&db, "g", "a", "eva@example.org");
        grant(&db, "h", "b", "eva@example.org");
        assert_eq!(follow(&db, "a", "b").unwrap(), 0);
        assert_eq!(portal::of_patient(&db, "a").unwrap().unwrap().id, "one");
        assert_eq!(undo(&db, "a", &["b".into()]).unwrap(), 0);
    }
}
