//! This program's SQL, which is SQLite's, in PostgreSQL's words.
//!
//! Statements are one text for both and differ in how places are written. Where SQLite has a function that PostgreSQL has
//! not, the schema here brings one of the same name. Of the schema, types and triggers are translated; its texts are a closed
//! set, in this program's own words, and whatever is not understood is refused by the server when the tables are made.

use super::types;

/// Functions that statements call, and what the append-only tables say. Names without a schema are those of this database.
pub(super) const FUNCTIONS: &str = "
CREATE FUNCTION json_extract(body text, path text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS 'SELECT body::json #>> string_to_array(substr(path, 3), ''.'')';
CREATE FUNCTION instr(whole text, part text) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS 'SELECT strpos(whole, part)::bigint';
CREATE FUNCTION hex(bytes bytea) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS 'SELECT upper(encode(bytes, ''hex''))';
CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN RAISE EXCEPTION ''append-only'' USING ERRCODE = ''integrity_constraint_violation''; END';
";

/// A statement: `?1` is written `$1`, and what stands between quotes is left as it is. With it the types of the places: 0 for
/// the server to find out, and text for those that stand nowhere, of which it would find none.
pub(super) fn statement(sql: &str) -> (String, Vec<u32>) {
    let mut out = String::with_capacity(sql.len());
    let mut kinds = Vec::new();
    let mut quoted = false;
    for (at, sign) in sql.char_indices() {
        quoted ^= sign == '\'';
        let is_place = sign == '?' && !quoted;
        out.push(if is_place { '$' } else { sign });
        let digits = sql[at + sign.len_utf8()..].split(|sign: char| !sign.is_ascii_digit()).next().unwrap_or_default();
        if let (true, Some(place)) = (is_place, digits.parse::<usize>().ok().and_then(|number| number.checked_sub(1))) {
            kinds.resize(kinds.len().max(place + 1), types::TEXT);
            kinds[place] = 0;
        }
    }
    (out, kinds)
}

/// The statements of a step of the schema. `moves_data`: those that move rows are among them; a database in which there are
/// none yet needs none of these.
pub(super) fn schema(sql: &str, moves_data: bool) -> Vec<String> {
    let statements = divided(&without_comments(sql));
    statements.iter().filter(|sql| moves_data || !sql.starts_with("INSERT ")).flat_map(|sql| translated(sql)).collect()
}

fn without_comments(sql: &str) -> String {
    sql.lines().map(|line| line.split_once("--").map_or(line, |(before, _)| before)).collect::<Vec<_>>().join("\n")
}

/// Divided at semicolons, except for those inside of a trigger.
fn divided(sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = sql.trim();
    while !rest.is_empty() {
        let end = match rest.starts_with("CREATE TRIGGER") {
            true => rest.find("END;").map_or(rest.len(), |at| at + 4),
            false => rest.find(';').map_or(rest.len(), |at| at + 1),
        };
        let (one, more) = rest.split_at(end);
        found.push(one.trim_end_matches(';').trim().to_owned());
        rest = more.trim_start();
    }
    found
}

fn translated(sql: &str) -> Vec<String> {
    if let Some(trigger) = sql.strip_prefix("CREATE TRIGGER ") {
        return self::trigger(trigger);
    }
    let Some(table) = sql.strip_prefix("CREATE TABLE ") else { return vec![deferrable(&typed(sql))] };
    let name = table.split_whitespace().next().unwrap_or_default();
    let body = table.trim_end_matches("WITHOUT ROWID").trim_end().trim_end_matches(',').trim_end();
    let mut body = deferrable(&typed(body.trim_end_matches("STRICT").trim_end()));
    if !body.contains("PRIMARY KEY") {
        // What SQLite gives every row, for statements that mean one of several equal ones.
        let inside = body.trim_end_matches(')').len();
        body.insert_str(inside, ", rowid bigint GENERATED ALWAYS AS IDENTITY");
    }
    let mut all = vec![format!("CREATE TABLE {body}")];
    if let Some((before, _)) = table.split_once(" INTEGER PRIMARY KEY") {
        let key = before.trim_end().rsplit([' ', '(', '\n']).next().unwrap_or_default();
        all.extend(numbered(name, key));
    }
    if name == "audit" || name == "history" || name.starts_with("ledger_") || name.starts_with("consent_") {
        // Emptied at once, they would be changed without a row trigger's word.
        all.push(format!(
            "CREATE TRIGGER {name}_keep_t BEFORE TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION append_only()"
        ));
    }
    all
}

/// New rows get the next number, as in SQLite: one more than the greatest, so that none is left out when a transaction
/// fails, and a copy of the rows needs no counter beside them. Only one transaction writes at a time.
fn numbered(table: &str, key: &str) -> [String; 2] {
    [
        format!(
            "CREATE FUNCTION {table}_number() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF new.{key} IS NULL THEN \
             SELECT coalesce(max({key}), 0) + 1 INTO new.{key} FROM {table}; END IF; RETURN new; END'"
        ),
        format!(
            "CREATE TRIGGER {table}_number BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_number()"
        ),
    ]
}

/// `name BEFORE UPDATE ON table BEGIN ... END`.
fn trigger(sql: &str) -> Vec<String> {
    let (head, body) = sql.split_once("BEGIN").unwrap_or((sql, ""));
    let name = head.split_whitespace().next().unwrap_or_default();
    let (head, condition) = head.split_once(" WHEN ").map_or((head, None), |(head, when)| (head, Some(when.trim())));
    let condition = condition.map(|when| format!(" WHEN ({when})")).unwrap_or_default();
    let head = head.trim();
    if body.contains("RAISE(ABORT, 'append-only')") {
        return vec![format!("CREATE TRIGGER {head} FOR EACH ROW{condition} EXECUTE FUNCTION append_only()")];
    }
    let body = body.trim().trim_end_matches("END").trim().replace('\'', "''");
    vec![
        format!("CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body} RETURN NULL; END'"),
        format!("CREATE TRIGGER {head} FOR EACH ROW{condition} EXECUTE FUNCTION {name}()"),
    ]
}

/// The words for types.
fn typed(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 64);
    let is_word = |sign: char| sign.is_ascii_alphanumeric() || sign == '_';
    let mut rest = sql;
    while let Some(from) = rest.find(is_word) {
        let (before, word) = rest.split_at(from);
        let (word, after) = word.split_at(word.find(|sign| !is_word(sign)).unwrap_or(word.len()));
        out.push_str(before);
        out.push_str(match word {
            "INTEGER" => "bigint",
            "BLOB" => "bytea",
            "REAL" => "double precision",
            word => word,
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// References may be looked at when a transaction ends, where a whole database is copied.
fn deferrable(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 64);
    let mut rest = sql;
    while let Some(at) = rest.find("REFERENCES ") {
        let end = rest[at..].find(')').map_or(rest.len(), |end| at + end + 1);
        out.push_str(&rest[..end]);
        out.push_str(" DEFERRABLE");
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_translated_and_quotes_are_not() {
        let sql = "SELECT '?1', a FROM t WHERE a = ?1 AND b IN (?12) AND c <> 'it''s ?'";
        let (said, kinds) = statement(sql);
        assert_eq!(said, "SELECT '?1', a FROM t WHERE a = $1 AND b IN ($12) AND c <> 'it''s ?'");
        assert_eq!((kinds.len(), kinds[0], kinds[5], kinds[11]), (12, 0, types::TEXT, 0));
    }

    #[test]
    fn tables_have_the_types_and_rules_of_the_server() {
        let sql = "-- words\nCREATE TABLE a (id INTEGER PRIMARY KEY, b BLOB CHECK (length(b) = 2), -- more; words\n \
                   c TEXT REFERENCES d (e), f REAL) STRICT, WITHOUT ROWID;\nCREATE INDEX i ON a (b) WHERE c <> '';";
        let found = schema(sql, false);
        assert_eq!(
            found[0],
            "CREATE TABLE a (id bigint PRIMARY KEY, b bytea CHECK (length(b) = 2), \n c TEXT REFERENCES d (e) DEFERRABLE, \
             f double precision)"
        );
        assert!(found[1].contains("max(id)") && found[2].starts_with("CREATE TRIGGER a_number"), "{found:?}");
        assert_eq!(found[3], "CREATE INDEX i ON a (b) WHERE c <> ''");
        let keyless = schema("CREATE TABLE a (b TEXT NOT NULL) STRICT;", false);
        assert_eq!(keyless, ["CREATE TABLE a (b TEXT NOT NULL, rowid bigint GENERATED ALWAYS AS IDENTITY)"]);
    }

    #[test]
    fn triggers_become_functions() {
        let sql = "CREATE TRIGGER k BEFORE UPDATE ON a BEGIN SELECT RAISE(ABORT, 'append-only'); END;\n\
                   CREATE TRIGGER n AFTER UPDATE OF d ON a WHEN new.d <> 0\nBEGIN DELETE FROM o WHERE r = new.r; END;\n\
                   INSERT INTO o SELECT 1;";
        assert_eq!(
            schema(sql, false),
            [
                "CREATE TRIGGER k BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION append_only()",
                "CREATE FUNCTION n() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM o WHERE r = new.r; RETURN NULL; \
                 END'",
                "CREATE TRIGGER n AFTER UPDATE OF d ON a FOR EACH ROW WHEN (new.d <> 0) EXECUTE FUNCTION n()",
            ]
        );
        assert_eq!(schema(sql, true).len(), 4);
    }
}
