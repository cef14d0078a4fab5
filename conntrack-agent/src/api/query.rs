//! Parses and applies Neutron's list parameters: filters, order, page and fields.
//!
//! <https://docs.openstack.org/api-ref/network/v2/>: *Filtering and column
//! selection*, *Pagination*, *Sorting*. Unlike Neutron, an unknown parameter is refused
//! instead of ignored.

mod order;

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    extract::Query,
    http::{Uri, uri::PathAndQuery},
};
use serde_json::{Map, Value};

use order::{Direction, SortOrder};

/// The size limit of a query, in bytes: some hundred ids to filter by.
const MAX_LENGTH: usize = 16 << 10;

/// The maximum number of parameters in a query.
const MAX_PARAMETERS: usize = 512;

/// The maximum number of items in a page.
pub(super) const MAX_LIMIT: usize = 10_000;

/// The field that identifies an item; every resource has it.
const ID: &str = "id";

/// An item of a list: a JSON object.
pub type Item = Map<String, Value>;

/// Checked list parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// The accepted values of each filtered field.
    filters: BTreeMap<&'static str, BTreeSet<String>>,
    /// The fields that are shown; all if this is empty.
    fields: BTreeSet<&'static str>,
    /// The order of the items.
    order: SortOrder,
    /// The maximum number of items.
    limit: Option<usize>,
    /// The id of the item after which the page begins, or before which it ends.
    marker: Option<String>,
    /// Whether the page ends before the marker.
    reverse: bool,
}

/// The error when list parameters are refused. It repeats only the beginning of a given
/// text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The query is too long.
    #[error("the query is {length} bytes long; at most {MAX_LENGTH} are allowed")]
    TooLong {
        /// The length of the query, in bytes.
        length: usize,
    },
    /// The query has too many parameters.
    #[error("the query has {number} parameters; at most {MAX_PARAMETERS} are allowed")]
    TooMany {
        /// The number of parameters.
        number: usize,
    },
    /// The query is not percent-encoded UTF-8.
    #[error(
        "the query is not well encoded; other characters than letters, digits and -._~ \
         are wanted as UTF-8, each byte as % and two hexadecimal digits"
    )]
    Encoding,
    /// A parameter is neither a field nor one that all lists have.
    #[error(
        "unknown query parameter {given:?}; allowed are the fields {}, \
         and fields, sort_key, sort_dir, limit, marker and page_reverse",
        allowed.join(", ")
    )]
    Parameter {
        /// The given text.
        given: String,
        /// The resource's fields.
        allowed: &'static [&'static str],
    },
    /// The value of `fields` or `sort_key` is not a field.
    #[error("{parameter} names {given:?}; the fields are {}", allowed.join(", "))]
    Field {
        /// The parameter.
        parameter: &'static str,
        /// The given text.
        given: String,
        /// The resource's fields.
        allowed: &'static [&'static str],
    },
    /// The value of a parameter is not allowed.
    #[error("{parameter} is {given:?}; {wanted}")]
    Value {
        /// The parameter.
        parameter: &'static str,
        /// The given text.
        given: String,
        /// The allowed values, as a sentence.
        wanted: String,
    },
    /// A parameter is repeated that is allowed once.
    #[error("{parameter} is given more than once; one is allowed")]
    Repeated {
        /// The parameter.
        parameter: &'static str,
    },
    /// The numbers of sort keys and of directions differ.
    #[error(
        "there are {keys} sort_key and {directions} sort_dir; \
         as many directions as keys are wanted, or none"
    )]
    Pairs {
        /// The number of `sort_key`.
        keys: usize,
        /// The number of `sort_dir`.
        directions: usize,
    },
    /// No item has the marker's id.
    #[error("marker is {given:?}, which is the id of no item of this list")]
    Marker {
        /// The given text.
        given: String,
    },
}

impl ListQuery {
    /// Parses the query of a request's target, without its question mark; `None` is a
    /// target without one. `fields` are the fields of the list's items, `id` among them.
    ///
    /// # Errors
    /// Returns [`QueryError`] for the first parameter that is wrong.
    pub fn parse(query: Option<&str>, fields: &'static [&'static str]) -> Result<Self, QueryError> {
        let mut list = Self::default();
        let (mut keys, mut directions) = (Vec::new(), Vec::new());
        let (mut limit, mut marker, mut reverse) = (None, None, None);
        for (name, value) in parameters(query.unwrap_or_default())? {
            match name.as_str() {
                "fields" => {
                    list.fields.insert(field("fields", &value, fields)?);
                }
                "sort_key" => keys.push(field("sort_key", &value, fields)?),
                "sort_dir" => directions.push(direction(&value)?),
                "limit" => once("limit", &mut limit, page_size(&value)?)?,
                "marker" => once("marker", &mut marker, value)?,
                "page_reverse" => once("page_reverse", &mut reverse, boolean(&value)?)?,
                _ => {
                    let known = fields.iter().find(|field| **field == name).ok_or_else(|| {
                        QueryError::Parameter {
                            given: shortened(&name),
                            allowed: fields,
                        }
                    })?;
                    list.filters.entry(known).or_default().insert(value);
                }
            }
        }
        if directions.is_empty() {
            directions.resize(keys.len(), Direction::Ascending);
        }
        if directions.len() != keys.len() {
            return Err(QueryError::Pairs {
                keys: keys.len(),
                directions: directions.len(),
            });
        }
        list.order = SortOrder::new(keys.into_iter().zip(directions));
        (list.limit, list.marker) = (limit, marker);
        list.reverse = reverse.unwrap_or(false);
        Ok(list)
    }

    /// Returns the requested items in the requested order; equal keys are ordered by id.
    /// `items` are all items of the list, with unique ids. The marker need not pass the
    /// filters, so that a page can follow an item that has changed since it was shown.
    ///
    /// # Errors
    /// Returns [`QueryError::Marker`] if no item has the marker's id.
    pub fn apply(&self, mut items: Vec<Item>) -> Result<Vec<Item>, QueryError> {
        let marker = self
            .marker
            .as_deref()
            .map(|id| marked(&items, id))
            .transpose()?;
        items.retain(|item| self.passes(item));
        items.sort_by(|one, other| self.order.compare(one, other));
        let limit = self.limit.unwrap_or(usize::MAX);
        let page = if self.reverse {
            let end = marker.map_or(items.len(), |marker| {
                items.partition_point(|item| self.order.compare(item, &marker).is_lt())
            });
            end.saturating_sub(limit)..end
        } else {
            let start = marker.map_or(0, |marker| {
                items.partition_point(|item| self.order.compare(item, &marker).is_le())
            });
            start..items.len().min(start.saturating_add(limit))
        };
        let mut page: Vec<_> = items.drain(page).collect();
        if !self.fields.is_empty() {
            for item in &mut page {
                item.retain(|name, _| self.fields.contains(name.as_str()));
            }
        }
        Ok(page)
    }

    /// Returns whether an item passes all filters.
    fn passes(&self, item: &Item) -> bool {
        let mut filters = self.filters.iter();
        filters.all(|(field, wanted)| matches(item.get(*field), wanted))
    }
}

/// Returns whether a field has one of these values, compared by their text in a query: a
/// number's digits, an empty text for null. A list matches if any of its elements does.
fn matches(value: Option<&Value>, wanted: &BTreeSet<String>) -> bool {
    match value {
        None | Some(Value::Null) => wanted.contains(""),
        Some(Value::String(text)) => wanted.contains(text),
        Some(Value::Number(number)) => wanted.contains(&number.to_string()),
        Some(Value::Bool(flag)) => wanted.contains(if *flag { "true" } else { "false" }),
        Some(Value::Array(elements)) => elements
            .iter()
            .any(|element| !element.is_array() && matches(Some(element), wanted)),
        Some(Value::Object(_)) => false,
    }
}

/// Returns the item with this id.
fn marked(items: &[Item], id: &str) -> Result<Item, QueryError> {
    items
        .iter()
        .find(|item| item.get(ID).and_then(Value::as_str) == Some(id))
        .cloned()
        .ok_or_else(|| QueryError::Marker {
            given: shortened(id),
        })
}

/// Decodes the names and values of a query.
fn parameters(query: &str) -> Result<Vec<(String, String)>, QueryError> {
    if query.len() > MAX_LENGTH {
        return Err(QueryError::TooLong {
            length: query.len(),
        });
    }
    if !well_escaped(query) {
        return Err(QueryError::Encoding);
    }
    let target = PathAndQuery::try_from(format!("/?{query}")).map_err(|_| QueryError::Encoding)?;
    let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(&Uri::from(target))
        .map_err(|_| QueryError::Encoding)?;
    // The decoder replaces invalid UTF-8 with the replacement character.
    let replaced = |text: &str| text.contains(char::REPLACEMENT_CHARACTER);
    if parameters
        .iter()
        .any(|(name, value)| replaced(name) || replaced(value))
    {
        return Err(QueryError::Encoding);
    }
    if parameters.len() > MAX_PARAMETERS {
        return Err(QueryError::TooMany {
            number: parameters.len(),
        });
    }
    Ok(parameters)
}

/// Returns whether a query has only allowed characters, and two hexadecimal digits after
/// each %: the decoder would accept any other % as it is.
fn well_escaped(query: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    let escape = |behind: &str| {
        let digits = behind.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    query.bytes().all(allowed) && query.split('%').skip(1).all(escape)
}

/// Returns the resource's field of this name.
fn field(
    parameter: &'static str,
    given: &str,
    fields: &'static [&'static str],
) -> Result<&'static str, QueryError> {
    fields
        .iter()
        .copied()
        .find(|field| *field == given)
        .ok_or_else(|| QueryError::Field {
            parameter,
            given: shortened(given),
            allowed: fields,
        })
}

fn direction(given: &str) -> Result<Direction, QueryError> {
    match given {
        "asc" => Ok(Direction::Ascending),
        "desc" => Ok(Direction::Descending),
        _ => Err(refused("sort_dir", given, "asc and desc are allowed")),
    }
}

fn boolean(given: &str) -> Result<bool, QueryError> {
    // Python's clients write a bool as Python does.
    match given {
        "true" | "True" => Ok(true),
        "false" | "False" => Ok(false),
        _ => Err(refused("page_reverse", given, "true and false are allowed")),
    }
}

fn page_size(given: &str) -> Result<usize, QueryError> {
    let is_digits = given.bytes().all(|byte| byte.is_ascii_digit());
    given
        .parse()
        .ok()
        .filter(|number| is_digits && (1..=MAX_LIMIT).contains(number))
        .ok_or_else(|| {
            let wanted = format!("a whole number from 1 to {MAX_LIMIT} is wanted");
            refused("limit", given, wanted)
        })
}

/// Stores the value of a parameter that is allowed once.
fn once<T>(parameter: &'static str, place: &mut Option<T>, value: T) -> Result<(), QueryError> {
    if place.replace(value).is_some() {
        return Err(QueryError::Repeated { parameter });
    }
    Ok(())
}

fn refused(parameter: &'static str, given: &str, wanted: impl Into<String>) -> QueryError {
    QueryError::Value {
        parameter,
        given: shortened(given),
        wanted: wanted.into(),
    }
}

fn shortened(given: &str) -> String {
    given.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
