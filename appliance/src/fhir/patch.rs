//! JSON Patch (RFC 6902): all operations or none.

use crate::store::StoreError;
use serde_json::Value;

/// Operations of one patch at most.
const OPERATIONS_MAX: usize = 256;

/// Applies a patch document to a resource.
///
/// # Errors
/// [`StoreError::Invalid`] names the operation by its number, never what it holds.
pub fn apply(mut body: Value, patch: &Value) -> Result<Value, StoreError> {
    let Value::Array(operations) = patch else {
        return Err(StoreError::invalid("a JSON Patch is an array of operations", "body"));
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(StoreError::invalid("has more than 256 operations", "body"));
    }
    for (number, operation) in operations.iter().enumerate() {
        carry_out(&mut body, operation).map_err(|sentence| StoreError::invalid(sentence, format!("[{number}]")))?;
    }
    Ok(body)
}

fn carry_out(body: &mut Value, operation: &Value) -> Result<(), &'static str> {
    const NO_VALUE: &str = "this operation needs a value";
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let path = pointer(text("path").ok_or("an operation needs a path")?)?;
    let value = operation.get("value");
    let from = || pointer(text("from").ok_or("this operation needs `from`")?);
    match text("op") {
        Some("add") => add(body, &path, value.ok_or(NO_VALUE)?.clone()),
        Some("remove") => remove(body, &path).map(drop),
        Some("replace") => {
            *find(body, &path)? = value.ok_or(NO_VALUE)?.clone();
            Ok(())
        }
        Some("copy") => {
            let value = find(body, &from()?)?.clone();
            add(body, &path, value)
        }
        Some("move") => {
            let from = from()?;
            if path.starts_with(&from) && path.len() > from.len() {
                return Err("nothing is moved into itself");
            }
            let value = remove(body, &from)?;
            add(body, &path, value)
        }
        Some("test") => match same(find(body, &path)?, value.ok_or(NO_VALUE)?) {
            true => Ok(()),
            false => Err("the test does not hold"),
        },
        _ => Err("op must be add, remove, replace, move, copy or test"),
    }
}

/// Equal as RFC 6902 has it: numbers by value, objects without order.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn pointer(text: &str) -> Result<Vec<String>, &'static str> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text.strip_prefix('/').ok_or("a path begins with /")?;
    Ok(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect())
}

const NOWHERE: &str = "the path leads nowhere";

fn find<'v>(body: &'v mut Value, path: &[String]) -> Result<&'v mut Value, &'static str> {
    path.iter().try_fold(body, |value, part| match value {
        Value::Object(element) => element.get_mut(part).ok_or(NOWHERE),
        Value::Array(items) => items.get_mut(place(part)?).ok_or(NOWHERE),
        _ => Err(NOWHERE),
    })
}

/// An index as RFC 6901 writes it: no sign, no leading zero.
fn place(part: &str) -> Result<usize, &'static str> {
    let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    part.parse().ok().filter(|_| plain).ok_or(NOWHERE)
}

fn add(body: &mut Value, path: &[String], value: Value) -> Result<(), &'static str> {
    let Some((last, parents)) = path.split_last() else {
        *body = value;
        return Ok(());
    };
    match find(body, parents)? {
        Value::Object(element) => drop(element.insert(last.clone(), value)),
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => match place(last)? {
            at if at <= items.len() => items.insert(at, value),
            _ => return Err(NOWHERE),
        },
        _ => return Err(NOWHERE),
    }
    Ok(())
}

fn remove(body: &mut Value, path: &[String]) -> Result<Value, &'static str> {
    let (last, parents) = path.split_last().ok_or("the whole resource is not removed by a patch")?;
    match find(body, parents)? {
        // The other elements keep their order.
        Value::Object(element) => element.shift_remove(last).ok_or(NOWHERE),
        Value::Array(items) => match place(last)? {
            at if at < items.len() => Ok(items.remove(at)),
            _ => Err(NOWHERE),
        },
        _ => Err(NOWHERE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations_do_what_the_rfc_says() {
        for (body, patch, expected) in [
            (json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": 2}]), Some(json!({"a": 1, "b": 2}))),
            (json!({"a": [1, 3]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), Some(json!({"a": [1, 2, 3]}))),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), Some(json!({"a": [1, 2]}))),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/2", "value": 2}]), None),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/01", "value": 2}]), None),
            (json!({"a/b": 1}), json!([{"op": "remove", "path": "/a~1b"}]), Some(json!({}))),
            (json!({"a": 1}), json!([{"op": "replace", "path": "/b", "value": 2}]), None),
            (
                json!({"a": {"b": 1}}),
                json!([{"op": "move", "from": "/a/b", "path": "/c"}]),
                Some(json!({"a": {}, "c": 1})),
            ),
            (json!({"a": {"b": 1}}), json!([{"op": "move", "from": "/a", "path": "/a/b"}]), None),
            (json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), Some(json!({"a": 1, "b": 1}))),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1.0}]), Some(json!({"a": 1}))),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": "1"}]), None),
            (json!({"a": 1}), json!([{"op": "remove", "path": ""}]), None),
            (json!({"a": 1}), json!({"op": "remove", "path": "/a"}), None),
        ] {
            assert_eq!(apply(body, &patch).ok(), expected, "{patch}");
        }
    }
}
