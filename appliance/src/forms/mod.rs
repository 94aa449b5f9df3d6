//! Templates of documentation: a FHIR `Questionnaire`, written by clinicians as lines of text, and answers to it.
//!
//! ```text
//! text, a line each  <-> Template (items, conditions, calculations) <-> Questionnaire
//! a form's fields     -> Answers -> QuestionnaireResponse
//! ```
//!
//! A template is data: its calculations are arithmetic over numbers of the same form and run nothing.

pub mod answers;
pub mod expression;
pub mod limits;
mod questionnaire;
mod response;
pub mod template;
mod typed;
mod unsupported;
mod value_set;

#[cfg(test)]
pub mod tests;

/// On an answered form: which one it amends.
pub const AMENDS: &str = "urn:holdfast:amends";

/// Tables of this module; applied by a migration of the store.
pub const SCHEMA: &str = include_str!("schema.sql");

pub use answers::{Answers, Place, field_name};
pub use template::{Condition, Item, Kind, Operator, Template, Unit};
