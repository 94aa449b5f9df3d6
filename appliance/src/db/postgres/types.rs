//! Values as the server writes them: binary, by the number of their type.

use super::super::{Code, Error, Result, ValueRef};
use bytes::{BufMut, BytesMut};

const BOOL: u32 = 16;
const BYTEA: u32 = 17;
const NAME: u32 = 19;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
pub(super) const TEXT: u32 = 25;
const FLOAT8: u32 = 701;
const UNKNOWN: u32 = 705;
const VARCHAR: u32 = 1043;
const NUMERIC: u32 = 1700;
const VOID: u32 = 2278;

/// The value of a column of type `oid`; `None` is null.
pub(super) fn decoded(oid: u32, bytes: Option<&[u8]>) -> Result<ValueRef<'_>> {
    let Some(bytes) = bytes else { return Ok(ValueRef::Null) };
    Ok(match oid {
        TEXT | VARCHAR | NAME | UNKNOWN => ValueRef::Text(bytes),
        BYTEA => ValueRef::Blob(bytes),
        INT8 => ValueRef::Integer(i64::from_be_bytes(sized(bytes)?)),
        INT4 => ValueRef::Integer(i32::from_be_bytes(sized(bytes)?).into()),
        INT2 => ValueRef::Integer(i16::from_be_bytes(sized(bytes)?).into()),
        BOOL => ValueRef::Integer(u8::from_be_bytes(sized(bytes)?).into()),
        FLOAT8 => ValueRef::Real(f64::from_be_bytes(sized(bytes)?)),
        NUMERIC => ValueRef::Integer(whole(bytes).ok_or(Error::Column)?),
        VOID => ValueRef::Null,
        _ => return Err(Error::Column),
    })
}

fn sized<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::Column)
}

/// A whole number of the type that sums have: digits of base 10,000, the first of weight `weight`.
fn whole(bytes: &[u8]) -> Option<i64> {
    let mut parts = bytes.chunks_exact(2).map(|part| part.try_into().map(i16::from_be_bytes).unwrap_or_default());
    let (digits, weight, sign, _scale) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let mut value: i128 = 0;
    for at in 0..=weight.max(-1) {
        let digit = if at < digits { parts.next()? } else { 0 };
        value = value.checked_mul(10_000)?.checked_add(digit.into())?;
    }
    let has_fraction = parts.any(|digit| digit != 0);
    match (has_fraction, sign) {
        (false, 0) => value.try_into().ok(),
        (false, 0x4000) => (-value).try_into().ok(),
        _ => None,
    }
}

/// Writes a value as one of type `oid`. The format that it is in (1 is binary); `None` for a null, of which nothing is written.
pub(super) fn encode(value: ValueRef<'_>, oid: u32, out: &mut BytesMut) -> Result<Option<i16>> {
    let wrong = Error::Constraint(Code::Misuse);
    match (value, oid) {
        (ValueRef::Null, _) => return Ok(None),
        (ValueRef::Integer(number), INT8) => out.put_i64(number),
        (ValueRef::Integer(number), INT4) => out.put_i32(number.try_into().map_err(|_| wrong)?),
        (ValueRef::Integer(number), INT2) => out.put_i16(number.try_into().map_err(|_| wrong)?),
        (ValueRef::Integer(number), BOOL) => out.put_u8(u8::from(number != 0)),
        (ValueRef::Integer(number), FLOAT8) => out.put_f64(number as f64),
        (ValueRef::Integer(number), TEXT | VARCHAR | NAME | UNKNOWN) => out.put_slice(number.to_string().as_bytes()),
        (ValueRef::Integer(number), NUMERIC) => {
            out.put_slice(number.to_string().as_bytes());
            return Ok(Some(0));
        }
        (ValueRef::Real(number), FLOAT8) => out.put_f64(number),
        (ValueRef::Real(number), TEXT) => out.put_slice(number.to_string().as_bytes()),
        (ValueRef::Text(text), TEXT | VARCHAR | NAME | UNKNOWN) => out.put_slice(text),
        (ValueRef::Blob(bytes), BYTEA) => out.put_slice(bytes),
        _ => return Err(wrong),
    }
    Ok(Some(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(parts: &[i16]) -> Vec<u8> {
        parts.iter().flat_map(|part| part.to_be_bytes()).collect()
    }

    #[test]
    fn sums_are_whole_numbers_or_nothing() {
        assert_eq!(whole(&numeric(&[0, 0, 0, 0])), Some(0));
        assert_eq!(whole(&numeric(&[1, 0, 0, 0, 42])), Some(42));
        assert_eq!(whole(&numeric(&[2, 1, 0x4000, 0, 12, 3456])), Some(-123_456));
        // Trailing zero digits are not written.
        assert_eq!(whole(&numeric(&[1, 2, 0, 0, 5])), Some(500_000_000));
        let largest = numeric(&[5, 4, 0, 0, 922, 3372, 368, 5477, 5807]);
        assert_eq!(whole(&largest), Some(i64::MAX));
        for wrong in [numeric(&[2, 0, 0, 1, 1, 5000]), numeric(&[1, 9, 0, 0, 1]), numeric(&[3, 2, 0, 0, 1]), vec![0, 1]]
        {
            assert_eq!(whole(&wrong), None, "{wrong:?}");
        }
    }
}
