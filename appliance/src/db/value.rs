//! Values: what goes into a statement and what comes out of a row, the same for every database.

use super::{Error, Result};

/// A value where it lies: in a row, or in what is bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    Null,
    Integer(i64),
    Real(f64),
    /// UTF-8, unless the file is damaged.
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

/// A value of its own. How it is shown by `Debug` is part of the facts of a snapshot and never changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

impl<'a> ValueRef<'a> {
    /// The text of a column of texts.
    pub fn as_str(&self) -> Result<&'a str> {
        match self {
            ValueRef::Text(text) => std::str::from_utf8(text).map_err(|_| Error::Column),
            _ => Err(Error::Column),
        }
    }

    fn as_integer(&self) -> Result<i64> {
        if let ValueRef::Integer(number) = self { Ok(*number) } else { Err(Error::Column) }
    }

    fn as_blob(&self) -> Result<&'a [u8]> {
        if let ValueRef::Blob(bytes) = self { Ok(bytes) } else { Err(Error::Column) }
    }
}

/// What a column is read as. A value of another type is [`Error::Column`]: it was not written by this program.
pub trait FromSql: Sized {
    fn read(value: ValueRef<'_>) -> Result<Self>;
}

macro_rules! integers {
    ($($number:ty),*) => {$(
        impl FromSql for $number {
            fn read(value: ValueRef<'_>) -> Result<Self> {
                value.as_integer()?.try_into().map_err(|_| Error::Column)
            }
        }
        impl ToSql for $number {
            fn bound(&self) -> Result<ValueRef<'_>> {
                (*self).try_into().map(ValueRef::Integer).map_err(|_| Error::Column)
            }
        }
    )*};
}

integers!(i64, i32, i16, u8, u16, u32, u64, usize);

impl FromSql for bool {
    fn read(value: ValueRef<'_>) -> Result<bool> {
        value.as_integer().map(|number| number != 0)
    }
}

impl FromSql for f64 {
    fn read(value: ValueRef<'_>) -> Result<f64> {
        match value {
            ValueRef::Real(number) => Ok(number),
            ValueRef::Integer(number) => Ok(number as f64),
            _ => Err(Error::Column),
        }
    }
}

impl FromSql for String {
    fn read(value: ValueRef<'_>) -> Result<String> {
        value.as_str().map(str::to_owned)
    }
}

impl FromSql for Vec<u8> {
    fn read(value: ValueRef<'_>) -> Result<Vec<u8>> {
        value.as_blob().map(<[u8]>::to_vec)
    }
}

impl<const N: usize> FromSql for [u8; N] {
    fn read(value: ValueRef<'_>) -> Result<[u8; N]> {
        value.as_blob()?.try_into().map_err(|_| Error::Column)
    }
}

impl<T: FromSql> FromSql for Option<T> {
    fn read(value: ValueRef<'_>) -> Result<Option<T>> {
        if value == ValueRef::Null { Ok(None) } else { T::read(value).map(Some) }
    }
}

impl FromSql for Value {
    fn read(value: ValueRef<'_>) -> Result<Value> {
        Ok(match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Real(number) => Value::Real(number),
            ValueRef::Text(_) => Value::Text(String::read(value)?),
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        })
    }
}

/// What can be bound to a place of a statement.
pub trait ToSql {
    fn bound(&self) -> Result<ValueRef<'_>>;
}

impl<T: ToSql + ?Sized> ToSql for &T {
    fn bound(&self) -> Result<ValueRef<'_>> {
        (**self).bound()
    }
}

impl ToSql for bool {
    fn bound(&self) -> Result<ValueRef<'_>> {
        Ok(ValueRef::Integer(i64::from(*self)))
    }
}

impl ToSql for f64 {
    fn bound(&self) -> Result<ValueRef<'_>> {
        Ok(ValueRef::Real(*self))
    }
}

impl ToSql for str {
    fn bound(&self) -> Result<ValueRef<'_>> {
        Ok(ValueRef::Text(self.as_bytes()))
    }
}

impl ToSql for String {
    fn bound(&self) -> Result<ValueRef<'_>> {
        self.as_str().bound()
    }
}

impl ToSql for [u8] {
    fn bound(&self) -> Result<ValueRef<'_>> {
        Ok(ValueRef::Blob(self))
    }
}

impl ToSql for Vec<u8> {
    fn bound(&self) -> Result<ValueRef<'_>> {
        Ok(ValueRef::Blob(self))
    }
}

impl<const N: usize> ToSql for [u8; N] {
    fn bound(&self) -> Result<ValueRef<'_>> {
        Ok(ValueRef::Blob(self))
    }
}

impl<T: ToSql> ToSql for Option<T> {
    fn bound(&self) -> Result<ValueRef<'_>> {
        self.as_ref().map_or(Ok(ValueRef::Null), ToSql::bound)
    }
}

impl ToSql for Value {
    fn bound(&self) -> Result<ValueRef<'_>> {
        Ok(match self {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(number) => ValueRef::Real(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        })
    }
}

impl ToSql for ValueRef<'_> {
    fn bound(&self) -> Result<ValueRef<'_>> {
        Ok(*self)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Integer(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Real(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

/// Takes the values of a statement one after the other.
pub type Binder<'b> = dyn FnMut(ValueRef<'_>) -> Result<()> + 'b;

/// The values of a statement, in the order of its places.
pub trait Params {
    fn bind(self, each: &mut Binder<'_>) -> Result<()>;
}

impl Params for () {
    fn bind(self, _: &mut Binder<'_>) -> Result<()> {
        Ok(())
    }
}

impl Params for [&dyn ToSql; 0] {
    fn bind(self, _: &mut Binder<'_>) -> Result<()> {
        Ok(())
    }
}

impl Params for &[&dyn ToSql] {
    fn bind(self, each: &mut Binder<'_>) -> Result<()> {
        self.iter().try_for_each(|value| each(value.bound()?))
    }
}

macro_rules! arrays {
    ($($count:literal),*) => {$(
        impl<T: ToSql> Params for [T; $count] {
            fn bind(self, each: &mut Binder<'_>) -> Result<()> {
                self.iter().try_for_each(|value| each(value.bound()?))
            }
        }
    )*};
}

arrays!(1, 2, 3, 4, 5, 6, 7, 8);

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: ToSql),*> Params for ($($name,)*) {
            #[allow(non_snake_case)]
            fn bind(self, each: &mut Binder<'_>) -> Result<()> {
                let ($($name,)*) = self;
                $(each($name.bound()?)?;)*
                Ok(())
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
tuples!(A B C D E F G H I);
tuples!(A B C D E F G H I J);
tuples!(A B C D E F G H I J K);
tuples!(A B C D E F G H I J K L);

/// See [`params_from_iter`].
pub struct ParamsFromIter<I>(I);

/// As many values as there are.
pub fn params_from_iter<I: IntoIterator<Item: ToSql>>(values: I) -> ParamsFromIter<I> {
    ParamsFromIter(values)
}

impl<I: IntoIterator<Item: ToSql>> Params for ParamsFromIter<I> {
    fn bind(self, each: &mut Binder<'_>) -> Result<()> {
        self.0.into_iter().try_for_each(|value| each(value.bound()?))
    }
}

/// Values of several types for one statement.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$(&$value as &dyn $crate::db::ToSql),*] as &[&dyn $crate::db::ToSql]
    };
}
pub(crate) use params;
